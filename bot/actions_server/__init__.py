"""Chorus inside Rasa: the webhook, the NLG and the gRPC service of an action server."""
