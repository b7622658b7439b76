"""From stored results to tables, statistics, figures and the report. Never imports torch."""
