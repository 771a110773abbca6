"""Many networks side by side: entries, intervals, tables, the HTML page."""
