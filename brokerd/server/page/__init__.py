"""The page that shows a person all grants at once (docs/page.md): what is wrong, since when, and what to do."""
