/*
 * fuzz_image.c - throws damaged kernels at the loader; run it built with SAN=address,undefined.
 *
 *   fuzz_image [SECONDS [SEED]]	mutates kernels that it makes, until the time is up; says the seed it ran with
 *   fuzz_image FILE...			loads each file once: to look at a finding again
 *
 * With clang -fsanitize=fuzzer -DUMBRA_LIBFUZZER the same LLVMFuzzerTestOneInput() runs under libFuzzer.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/image_make.h"
#include "vmm/image.h"
#include "vmm/symbols.h"

#define LIMIT	(1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whatever opens has to keep the promises of image.h; every byte of it is read, for ASan to see. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_error err = { "" };
	volatile uint8_t sink = 0;
	struct symbols *syms;
	struct image *img;
	char name[32];
	int ret;

	ret = image_open_memory("fuzz", data, size, LIMIT, &img, &err);
	if (ret) {
		must((ret == -EBADMSG || ret == -ENOEXEC || ret == -ENOTSUP || ret == -EFBIG) && strlen(err.text) > 10);
		return 0;
	}
	must(img->nr_segments >= 1 && img->nr_segments <= IMAGE_MAX_SEGMENTS && img->elf_size <= LIMIT);
	for (unsigned i = 0; i < img->nr_segments; i++) {
		const struct image_segment *s = &img->segments[i];

		must(s->memsz && s->filesz <= s->memsz && s->pa + s->memsz >= s->pa && s->va + s->memsz >= s->va);
		must(s->pa >= img->pa_start && s->pa + s->memsz <= img->pa_end && s->va - s->pa == img->xen.virt_base);
		for (uint64_t j = 0; j < s->filesz; j++)
			sink ^= s->data[j];
	}
	if (!image_check_pv(img, ~0u, &err))
		must(img->xen.virt_base <= img->virt_kstart && img->virt_kstart <= img->virt_entry &&
		     img->virt_entry <= img->virt_kend && !((img->xen.virt_base ^ img->virt_kend) >> 63));
	if (!symbols_from_image(img, &syms)) {
		must(strlen(symbols_name(syms, img->virt_entry, name, sizeof(name))) > 0);
		symbols_free(syms);
	}
	image_close(img);
	return 0;
}

#ifndef UMBRA_LIBFUZZER

static uint64_t seed;

static uint64_t random64(void)		/* xorshift64* */
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * 0x2545f4914f6cdd1d;
}

static uint64_t below(uint64_t n)
{
	return n ? random64() % n : 0;
}

/* An ELF kernel with everything the parser looks at. */
static struct blob make_seed_elf(void)
{
	static const uint64_t l1[] = { 1, 1 };
	static const struct make_note notes[] = {
		{ NULL, XEN_ELFNOTE_XEN_VERSION, "xen-3.0", 0, 0 },
		{ NULL, XEN_ELFNOTE_LOADER, "generic", 0, 0 },
		{ NULL, XEN_ELFNOTE_VIRT_BASE, NULL, 0xffffffff80000000, 8 },
		{ NULL, XEN_ELFNOTE_ENTRY, NULL, 0xffffffff80100000, 8 },
		{ NULL, XEN_ELFNOTE_FEATURES, "!writable_page_tables|dom0", 0, 0 },
		{ NULL, XEN_ELFNOTE_L1_MFN_VALID, l1, 0, sizeof(l1) },
		{ NULL, XEN_ELFNOTE_SUPPORTED_FEATURES, NULL, 0x8801, 4 },
		{ 0 }
	};
	static const struct make_segment segments[] = {
		{ 0xffffffff80100000, 0x100000, 300, 300 }, { 0xffffffff80200000, 0x200000, 0, 0x1000 }, { 0 }
	};
	static const struct make_symbol symbols[] = {
		{ "startup_xen", 0xffffffff80100000, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC) }, { 0 }
	};
	unsigned how = below(3);

	return make_elf(&(struct make_elf){
		.entry = 0x100000, .segments = segments, .symbols = symbols,
		.notes = how < 2 ? notes : NULL, .note_sections = how == 1,
		.guest_section = how == 2 ? "XEN_VER=xen-3.0,LOADER=generic,VIRT_BASE=0x0,HYPERCALL_PAGE=0x101,"
					    "FEATURES=!dom0|writable_page_tables" : NULL });
}

static void mutate(struct blob *b)
{
	static const uint64_t edges[] = { 0, 1, 0x7f, 0xff, 0xffff, 0x7fffffff, 0xffffffff, 0xfffffffc, 1ull << 32,
					  1ull << 63, UINT64_MAX, UINT64_MAX - 7 };
	unsigned n = 1 + below(4);

	while (n-- && b->n) {
		/* Headers decide most: half the changes go to the first 64, or a bzImage's 0x1f0 to 0x260. */
		size_t at = below(2) ? below(b->n) : below(2) ? below(64) : 0x1f0 + below(0x70);
		size_t width = 1u << below(4), from;
		uint64_t v;

		if (at >= b->n)
			at = below(b->n);
		if (below(2)) {		/* a whole field of an ELF header */
			at &= ~(size_t)7;
			width = 8;
		}
		if (width > b->n - at)
			width = b->n - at;
		switch (below(5)) {
		case 0:
			b->p[at] ^= 1u << below(8);
			break;
		case 1:
			v = edges[below(sizeof(edges) / sizeof(edges[0]))];
			memcpy(b->p + at, &v, width);
			break;
		case 2:
			v = below(2) ? below(b->n + 16) : random64();
			memcpy(b->p + at, &v, width);
			break;
		case 3:
			from = below(b->n);
			width = below((b->n - (at > from ? at : from)) + 1);
			memmove(b->p + at, b->p + from, width);
			break;
		default:
			if (!below(4))
				b->n = at;
		}
	}
}

static void one_round(void)
{
	const struct make_pack *pack = &make_packs[below(MAKE_PACKS)];
	struct blob b = make_seed_elf(), packed, exact = { 0 };

	/* Damage inside the packing, outside it, or both. */
	if (below(2))
		mutate(&b);
	if (below(3) && b.n) {
		packed = below(2) ? make_packed_bzimage(pack, b.p, b.n) : pack->pack(b.p, b.n);
		blob_free(&b);
		b = packed;
		if (below(2))
			mutate(&b);
	}
	exact.p = malloc(b.n + !b.n);	/* without slack behind the end */
	must(exact.p);
	memcpy(exact.p, b.p, b.n);
	LLVMFuzzerTestOneInput(exact.p, b.n);
	blob_free(&exact);
	blob_free(&b);
}

static int load_files(char **paths)
{
	for (; *paths; paths++) {
		struct image_error err = { "" };
		struct blob b;

		if (image_read_file(*paths, LIMIT, &b.p, &b.n, &err)) {
			fprintf(stderr, "fuzz_image: %s\n", err.text);
			return 1;
		}
		LLVMFuzzerTestOneInput(b.p, b.n);
		blob_free(&b);
	}
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long seconds = 10, rounds = 0;
	time_t end;

	if (argc > 1 && !access(argv[1], R_OK))
		return load_files(argv + 1);
	if (argc > 1)
		seconds = strtoul(argv[1], NULL, 10);
	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
	seed += !seed;
	end = time(NULL) + (time_t)seconds;
	printf("fuzz_image: seed %" PRIu64 "\n", seed);
	fflush(stdout);
	do {
		one_round();
		rounds++;
	} while (rounds % 64 || time(NULL) < end);
	printf("fuzz_image: %lu kernels in %lu s, nothing found\n", rounds, seconds);
	return 0;
}

#endif
