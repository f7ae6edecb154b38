"""The parts of the model: encoders, decoders, text enhancement, language model, memory, query."""
