class AsyncOutput:
    def __init__(self, tokens):
        self.tokens = tokens

    def get_output(self):
        return self.tokens
