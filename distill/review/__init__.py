"""Images before people: a local page to sort and correct them, its journal, and the formats of other tools."""
