class AttentionBackend:
    @staticmethod
    def get_name():
        return "TINY"
