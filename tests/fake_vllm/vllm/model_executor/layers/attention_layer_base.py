class AttentionLayerBase:
    impl: object

    def get_attn_backend(self):
        raise NotImplementedError
