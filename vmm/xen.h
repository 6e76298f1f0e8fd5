/*
 * xen.h - the Xen public ABI headers (Debian: libxen-dev), with the interface version that names today's layout.
 * The ABI calls our gfn 'mfn'; it is translated in the files that include this, nowhere else.
 */
#ifndef UMBRA_VMM_XEN_H
#define UMBRA_VMM_XEN_H

#include <stdint.h>

#define __XEN_INTERFACE_VERSION__ 0x00040d00

#include <xen/xen.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/callback.h>
#include <xen/elfnote.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/io/console.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>

/* The VMASST_TYPE_* that a guest may ask for, as bits. */
#define XEN_VM_ASSISTS	(1ull << VMASST_TYPE_4gb_segments | 1ull << VMASST_TYPE_4gb_segments_notify | \
			 1ull << VMASST_TYPE_writable_pagetables | 1ull << VMASST_TYPE_pae_extended_cr3 | \
			 1ull << VMASST_TYPE_architectural_iopl | 1ull << VMASST_TYPE_runstate_update_flag)

#define CALLBACK_MAX	8	/* CALLBACKTYPE_* are below this */

#endif
