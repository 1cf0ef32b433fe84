/* The recorded answers of the kernel: reference.txt, ended by a zero byte. */
#ifndef CONFORMANCE_REFERENCE_H
#define CONFORMANCE_REFERENCE_H

const char *conformance_reference(void);

#endif
