"""
Actions: rasa-sdk's and plugins', in this process and on servers, and when they run.

Knows nothing of lanes, of Redis, or of how a reply is generated.
"""
