"""The main job on simulated data whose truth is known: ``scgacl demo``."""

from ._job import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
