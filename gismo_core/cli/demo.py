"""gismo demo: forwards to gismo_core.demo, which is loaded only then."""

from __future__ import annotations

import importlib

import click

demo_command: click.Command = importlib.import_module("gismo_core.demo.cli").demo
