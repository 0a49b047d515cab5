"""One planner iteration as one static graph: candidates, rollout, costs, ranking, refit."""
