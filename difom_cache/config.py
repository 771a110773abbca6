"""Where the options of each command lie: a frozen model in the room that does the work (`options.Config`)."""

KEYWORDS = {
    "ExtractKeywords": "difom_cache.extraction.options:ExtractConfig",
    "ProbeKeywords": "difom_cache.probing.options:ProbeConfig",
    "ManifestKeywords": "difom_cache.data.options:ManifestConfig",
    "VerifyKeywords": "difom_cache.maintenance.options:VerifyConfig",
    "ShowKeywords": "difom_cache.commands:ShowConfig",
    "SampleKeywords": "difom_cache.commands:SampleConfig",
    "CopyKeywords": "difom_cache.commands:CopyConfig",
}
"Signatures to be made from configs (see `options.format_keywords`)."
