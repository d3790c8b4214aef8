"""What runs on the host for engines: admission, readiness, refusal and clean-up, called by units.

Only the standard library is imported here (and NVML's binding where there is a card): a cold start
waits for these programs, so every import is paid for by the first request.
"""
