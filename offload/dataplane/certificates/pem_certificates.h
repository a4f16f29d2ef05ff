/* The certificates of a PEM file that may hold a private key as well.
 *
 * The file is read into secret memory and only its CERTIFICATE blocks are decoded, so a combined file (chain and key in
 * one) can be read without its key leaving C. Certificates are public; their contents are not checked here.
 */
#ifndef OFFLOAD_PEM_CERTIFICATES_H
#define OFFLOAD_PEM_CERTIFICATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  PEM_FILE_MAX = 1024 * 1024, /* a bundle of all public CAs is about 250 KiB */
  PEM_CERTIFICATES_MAX = 512,
  PEM_ERROR_MAX = 256,
};

typedef struct pem_certificates {
  uint8_t *der; /* all certificates, one after the other */
  size_t count;
  size_t ends[PEM_CERTIFICATES_MAX]; /* certificate i is der[ends[i - 1] .. ends[i]) */
  size_t private_keys;               /* blocks with a private-key label, encrypted ones included; not decoded */
} pem_certificates;

/* False with the reason in `error` when a block is not closed or is not base64, or when there are too many. A text
 * without any block is not an error: count and private_keys are then 0. Free the result in either case. */
bool pem_certificates_parse(const uint8_t *text, size_t size, pem_certificates *found, char error[PEM_ERROR_MAX]);

/* The same for a file, which must be a regular one of at most PEM_FILE_MAX bytes. */
bool pem_certificates_read(const char *path, pem_certificates *found, char error[PEM_ERROR_MAX]);

void pem_certificates_free(pem_certificates *found);

#ifdef __cplusplus
}
#endif
#endif
