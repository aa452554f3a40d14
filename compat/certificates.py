"""Certificates for tests of TLS, made by openssl: an authority, one for a server on this machine, one for a client."""

import os
import shutil
import subprocess
import tempfile


class Certificates:
    """A folder with ca.crt, server.crt, server.key, client.crt and client.key. Removed at the end of a `with`."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="isthmus-certificates-")
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=authority",
                      "-days", "2", "-keyout", "ca.key", "-out", "ca.crt")
        self._issue("server", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self._issue("client", "extendedKeyUsage=clientAuth")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def file(self, name):
        return os.path.join(self.folder, name)

    def server_options(self):
        """What a server is told besides its port."""
        return ["--tls-cert-file", self.file("server.crt"), "--tls-key-file", self.file("server.key"), "--tls-ca-cert-file",
                self.file("ca.crt")]

    def _issue(self, name, extension):
        with open(self.file(f"{name}.ext"), "w", encoding="ascii") as file:
            file.write(extension + "\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout",
                      f"{name}.key", "-out", f"{name}.csr")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
                      "-extfile", f"{name}.ext", "-out", f"{name}.crt")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
