"""What every test starts from: one thread, so that results do not depend on the machine's cores.

A test that measures hands its table on by ``record_property("table", text)``; all are printed at the end.
"""

import pytest
import torch

torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables of tests, those that passed included, by whichever process they ran in."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, table in report.user_properties:
            if name == "table":
                terminalreporter.write_sep("-", report.nodeid.rpartition("::")[2])
                terminalreporter.write_line(table.rstrip())
