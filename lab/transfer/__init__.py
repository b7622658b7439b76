"""Does a verdict from synthetic tasks carry over to language? The same schedules, trained on text."""
