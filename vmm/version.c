/*
 * version.c - the only object that is built again when nothing but the version changed.
 */
#include "vmm/vmm.h"

#include "version.h"		/* made by vmm/module.mk from `git describe` */

const char *vmm_version(void)
{
	return UMBRA_VERSION;
}
