"""Many runs under one budget: trained, scored and put into one table."""
