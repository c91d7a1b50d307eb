"""Bytes -> believed bytes: the TUF client and the opening of bundles.

The rules this folder keeps:
 * Order of verification, always: size limit, TUF (length, hash, roles), signed fields
   and admission, container, manifest, contract, preflight, trial. This folder ends
   with the manifest.
 * Whatever arrives, only ``BundleRefusedError`` leaves.
 * TUF, cryptography and x509 are imported when first needed: a board that boots its
   committed model does not pay for them.
"""
