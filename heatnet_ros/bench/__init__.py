"""Measuring the pipeline: recorded frames, cases in processes of their own, one honest table."""
