"""Where the options of each command lie: a frozen model in the room that does the work (`options.Config`)."""

KEYWORDS = {
    "ExtractKeywords": "difom_cache.extraction.options:ExtractConfig",
    "ProbeKeywords": "difom_cache.probing.options:ProbeConfig",
}
"Signatures to be made from configs (see `options.format_keywords`)."
