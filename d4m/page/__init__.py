"""The report: what recipes gave, on one page of HTML that needs neither network nor server."""
