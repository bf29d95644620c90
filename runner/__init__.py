"""Carries one fine-tuning experiment from a YAML manifest to a report and a verdict."""

__version__ = "0.1.0"
