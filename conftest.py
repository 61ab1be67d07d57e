"""Loads the guards of notebooks wherever pytest is started in this project."""

pytest_plugins = ["tests.notebook_guards"]
