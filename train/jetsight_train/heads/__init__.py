"""Heads of a trained world model: recipe, labels, thresholds, scores and description.

Names: `Heads...` is about all heads of a model (`HeadsRecipe` to train them, `HeadsScores` measured
on them, `HeadsDescription` stored in a checkpoint); `ProbeHeadSpec` and `HazardHeadSpec` in
`model.heads` describe the outputs of one head. `HeadSpec` and `HazardSpec` are the bundle's.
"""
