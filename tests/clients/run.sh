#!/bin/bash
# Runs the client suites against a broker it starts itself: see README.md beside this file.
here=$(dirname "$(realpath "$0")")
export PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1
exec "${PYTHON:-python3}" -m harness "$@"
