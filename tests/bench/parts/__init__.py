# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of the benchmark of the fault path, each about one question."""
