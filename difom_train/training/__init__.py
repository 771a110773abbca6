"""`difom-train`: one run, built, trained, validated and kept; everything that touches the run folder while it trains."""
