class Platform:
    dist_backend = "gloo"

    def is_cpu(self):
        return True
