"""The few functions of OpenSSL that it takes to verify a signed message, through ctypes.

The library is the one that Python's ssl uses, so it costs no memory and is patched with the
system. Python itself has no way to it, and the `cryptography` package (15 MB) verifies no CMS.
"""

from __future__ import annotations

import _ssl
import ctypes
from ctypes import POINTER, c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p
from functools import cache

_FALL_BACKS = ("libcrypto.so.3", "libcrypto.so.1.1")

# Everything is spelled out: ctypes takes int for what it isn't told, and cuts pointers in half.
_PROTOTYPES = {
    "BIO_ctrl": (c_long, [c_void_p, c_int, c_long, c_void_p]),
    "BIO_free": (c_int, [c_void_p]),
    "BIO_new": (c_void_p, [c_void_p]),
    "BIO_s_mem": (c_void_p, []),
    "CMS_ContentInfo_free": (None, [c_void_p]),
    "CMS_get0_eContentType": (c_void_p, [c_void_p]),
    "CMS_get0_signers": (c_void_p, [c_void_p]),
    "CMS_get0_type": (c_void_p, [c_void_p]),
    "CMS_get1_certs": (c_void_p, [c_void_p]),
    "CMS_verify": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_uint]),
    "ERR_clear_error": (None, []),
    "ERR_get_error": (c_ulong, []),
    "ERR_reason_error_string": (c_char_p, [c_ulong]),
    "EVP_sha256": (c_void_p, []),
    "OBJ_obj2nid": (c_int, [c_void_p]),
    "OPENSSL_sk_free": (None, [c_void_p]),
    "OPENSSL_sk_num": (c_int, [c_void_p]),
    "OPENSSL_sk_pop": (c_void_p, [c_void_p]),
    "OPENSSL_sk_value": (c_void_p, [c_void_p, c_int]),
    "X509_NAME_print_ex": (c_int, [c_void_p, c_void_p, c_int, c_ulong]),
    "X509_STORE_CTX_free": (None, [c_void_p]),
    "X509_STORE_CTX_get_error": (c_int, [c_void_p]),
    "X509_STORE_CTX_init": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "X509_STORE_CTX_new": (c_void_p, []),
    "X509_STORE_free": (None, [c_void_p]),
    "X509_STORE_load_locations": (c_int, [c_void_p, c_char_p, c_char_p]),
    "X509_STORE_new": (c_void_p, []),
    "X509_STORE_set_flags": (c_int, [c_void_p, c_ulong]),
    "X509_digest": (c_int, [c_void_p, c_void_p, c_char_p, POINTER(c_uint)]),
    "X509_free": (None, [c_void_p]),
    "X509_get_subject_name": (c_void_p, [c_void_p]),
    "X509_verify_cert": (c_int, [c_void_p]),
    "X509_verify_cert_error_string": (c_char_p, [c_long]),
    "d2i_CMS_ContentInfo": (c_void_p, [c_void_p, POINTER(c_char_p), c_long]),
}


class LibcryptoUnavailable(Exception):
    """No library of this process has all the functions."""


@cache
def load_libcrypto() -> ctypes.CDLL:
    """The library, with the prototypes of all functions that are used here.

    Raises:
        LibcryptoUnavailable: with the reason for the last place that was tried.
    """
    # The handle of an extension module finds the symbols of the libraries that it is linked with.
    # A module that is built into the interpreter has no file: then the process itself is asked.
    reason = ""
    for place in (getattr(_ssl, "__file__", None), *_FALL_BACKS):
        try:
            return _declare(ctypes.CDLL(place))
        except (OSError, AttributeError) as error:
            reason = str(error)
    raise LibcryptoUnavailable(reason)


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
