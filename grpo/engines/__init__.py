"""What samples responses: vLLM or transformers, behind one protocol, and the proof that a sync has arrived."""
