"""Planners that a target cannot run: refused when the request is checked."""

from __future__ import annotations

from jetsight.cli import main


def test_a_planner_that_a_target_cannot_run_is_refused_before_any_work(tmp_path, capsys) -> None:
    """Not even the checkpoint is read: there is none."""
    settings = tmp_path / "planner.toml"
    command = ["compile", str(tmp_path / "none"), "--calib", str(tmp_path / "none")]
    command += ["--out", str(tmp_path / "x.jetsight"), "--planner-settings", str(settings)]

    def said(elites: int, planner: str, *targets: str) -> str:
        settings.write_text(f"[planner]\nelites = {elites}\n" if elites else "[planner]\n")
        chosen = [part for target in targets for part in ("--target", target)]
        assert main([*command, *chosen, "--planner", "icem", "--planner", planner]) != 0
        return capsys.readouterr().err

    refused = said(0, "cem:65000", "cpu", "orin-jp6")
    assert (
        "planner cem:65000 has 6500 elites, but TopK of target orin-jp6 (TensorRT 10.3)" in refused
    )
    assert "set elites to at most 3840 with --planner-settings" in refused
    assert "has 3841 elites" in said(3841, "cem:4000x2", "rtx")
    for passes in (
        said(3840, "cem:4000x2", "rtx"),
        said(0, "cem:38400", "rtx"),
        said(0, "mppi:65000", "rtx"),
        said(0, "cem:65536", "cpu"),
    ):
        assert "TopK" not in passes
        assert "model.json" in passes or "checkpoint" in passes, (
            "refused later, for what is missing"
        )
