"""Reports: one document, written as JSON, CSV, Markdown and a self-contained HTML page."""
