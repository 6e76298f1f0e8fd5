/*
 * flame.c - folded stacks as a flame graph (Gregg, The Flame Graph, CACM 59(6), 2016): a box per frame on top of its caller,
 * as wide as its share of the samples, neighbours in alphabetical order. The file is one SVG with a few lines of script for
 * zooming by click and for finding by the key f; without script it is a picture all the same.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/profile.h"

#define WIDTH		1200.0
#define MARGIN		10.0
#define ROW		17
#define HEAD		56		/* above the boxes */
#define FOOT		14
#define NARROWEST	0.2		/* px: what is narrower is not drawn */
#define CHAR		7.0		/* px of a character, at most */
#define DEEP		256u		/* frames of a line that are taken */

struct node {
	const char *name;		/* not terminated */
	size_t length;
	uint64_t times;			/* with all above it */
	struct node *child, *last, *next;
};

struct flame {
	struct node *nodes;
	size_t n, room;
	unsigned depth;
	FILE *to;
	uint64_t all;
};

static bool is_name(const struct node *n, const char *name, size_t length)
{
	return n && n->length == length && !memcmp(n->name, name, length);
}

/* The lines are sorted, so only the last child can be the one. */
static struct node *child_of(struct flame *f, struct node *parent, const char *name, size_t length)
{
	struct node *c = parent->last;

	if (is_name(c, name, length))
		return c;
	if (f->n == f->room)
		return NULL;
	c = &f->nodes[f->n++];
	*c = (struct node){ .name = name, .length = length };
	if (parent->last)
		parent->last->next = c;
	else
		parent->child = c;
	parent->last = c;
	return c;
}

/* "a;b;c 12": adds 12 to all, a, b and c. */
static int add_line(struct flame *f, const char *line, size_t length)
{
	const char *end = line + length, *count = memrchr(line, ' ', length), *at = line;
	struct node *node = &f->nodes[0];
	uint64_t times = 0;
	unsigned depth = 0;

	if (!count || count == line || count + 1 == end)
		return -EINVAL;
	for (const char *p = count + 1; p < end; p++) {
		if (*p < '0' || *p > '9' || times > UINT64_MAX / 20)
			return -EINVAL;
		times = times * 10 + *p - '0';
	}
	node->times += times;
	while (at < count && depth++ < DEEP) {
		const char *semicolon = memchr(at, ';', count - at), *stop = semicolon ? semicolon : count;

		node = child_of(f, node, at, stop - at);
		if (!node)
			return -EINVAL;
		node->times += times;
		at = stop + 1;
	}
	if (depth > f->depth)
		f->depth = depth;
	return 0;
}

static int build(struct flame *f, const char *folded)
{
	size_t frames = 1;
	int r = 0;

	for (const char *p = folded; *p; p++)
		frames += *p == ';' || *p == '\n';
	f->room = frames + 1;
	f->nodes = calloc(f->room, sizeof *f->nodes);
	if (!f->nodes)
		return -ENOMEM;
	f->nodes[0] = (struct node){ .name = "all", .length = 3 };
	f->n = 1;
	for (const char *line = folded; !r && *line; ) {
		size_t length = strcspn(line, "\n");

		r = add_line(f, line, length);
		line += length + (line[length] == '\n');
	}
	f->all = f->nodes[0].times;
	return r ? r : f->all ? 0 : -EINVAL;
}

/* ---- drawing ------------------------------------------------------------------------------------------------------ */

static void print_xml(FILE *to, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		switch (text[i]) {
		case '&':
			fputs("&amp;", to);
			break;
		case '<':
			fputs("&lt;", to);
			break;
		case '>':
			fputs("&gt;", to);
			break;
		case '"':
			fputs("&quot;", to);
			break;
		default:
			fputc(text[i] >= ' ' && text[i] <= '~' ? text[i] : '?', to);
		}
	}
}

/* Warm for user code, cool for the kernel, violet for what umbra adds; shades tell neighbours apart. */
static void print_color(FILE *to, const struct node *n, bool user)
{
	unsigned h = 0;

	for (size_t i = 0; i < n->length; i++)
		h = h * 31 + (unsigned char)n->name[i];
	if (*n->name == '[')
		fprintf(to, "hsl(%u,38%%,%u%%)", 268 + h % 24, 70 + h / 7 % 8);
	else if (user)
		fprintf(to, "hsl(%u,80%%,%u%%)", 24 + h % 20, 66 + h / 7 % 8);
	else
		fprintf(to, "hsl(%u,42%%,%u%%)", 172 + h % 34, 66 + h / 7 % 10);
}

static void draw(struct flame *f, const struct node *n, unsigned level, double x, bool user)
{
	double width = (WIDTH - 2 * MARGIN) * n->times / f->all;
	double y = HEAD + (double)(f->depth - level) * ROW;
	size_t chars = (width - 6) / CHAR > 0 ? (width - 6) / CHAR : 0;

	if (width < NARROWEST)
		return;
	fprintf(f->to, "<g class=\"f\"><title>");
	print_xml(f->to, n->name, n->length);
	fprintf(f->to, " (%" PRIu64 " samples, %.2f %%)</title><rect x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%d\" fill=\"",
		n->times, 100.0 * n->times / f->all, x, y, width, ROW - 1);
	if (level)
		print_color(f->to, n, user);
	else
		fputs("#d8d8d8", f->to);
	fprintf(f->to, "\"/><text x=\"%.2f\" y=\"%.0f\">", x + 3, y + 12);
	if (chars >= 3) {
		print_xml(f->to, n->name, n->length <= chars ? n->length : chars - 2);
		fputs(n->length <= chars ? "" : "..", f->to);
	}
	fputs("</text></g>\n", f->to);
	for (const struct node *c = n->child; c; c = c->next) {
		draw(f, c, level + 1, x, level ? user : is_name(c, "user", 4));
		x += (WIDTH - 2 * MARGIN) * c->times / f->all;
	}
}

static const char style[] =
	"<style>text{font:12px monospace;fill:#111;pointer-events:none}.h{font-size:15px;font-weight:bold}.s{fill:#555}"
	".f rect{stroke:#fff;stroke-width:.5;cursor:pointer}.f:hover rect{stroke:#000;stroke-width:1}"
	".dim{opacity:.25}.hit rect{fill:#e5339a}</style>\n";

/* Zooming maps the clicked box to the full width; boxes below it get that, too, and those beside it go. */
static const char script[] =
	"<script><![CDATA[\n"
	"(function(){\n"
	"var fs=[].slice.call(document.querySelectorAll('.f')),W=1180,X=10,C=7,info=document.getElementById('info');\n"
	"fs.forEach(function(g){var r=g.children[1],t=g.children[0].textContent;g.o={x:+r.getAttribute('x'),"
	"w:+r.getAttribute('width'),y:+r.getAttribute('y'),t:t,n:t.replace(/ \\(\\d+ samples.*/,'')};\n"
	"g.addEventListener('click',function(){zoom(g.o)});\n"
	"g.addEventListener('mouseover',function(){info.textContent=g.o.t});\n"
	"g.addEventListener('mouseout',function(){info.textContent=''});});\n"
	"function zoom(z){var k=W/z.w;fs.forEach(function(g){var o=g.o,r=g.children[1],t=g.children[2],x,w,\n"
	"under=o.y>z.y&&o.x<=z.x+.01&&o.x+o.w>=z.x+z.w-.01,inside=o.y<=z.y&&o.x>=z.x-.01&&o.x+o.w<=z.x+z.w+.01;\n"
	"g.style.display=under||inside?'':'none';if(!under&&!inside)return;\n"
	"x=under?X:X+(o.x-z.x)*k;w=under?W:o.w*k;r.setAttribute('x',x);r.setAttribute('width',w);t.setAttribute('x',x+3);\n"
	"g.classList.toggle('dim',under&&o.w<W-.01);\n"
	"var c=Math.floor((w-6)/C);t.textContent=c<3?'':o.n.length<=c?o.n:o.n.slice(0,c-2)+'..';});}\n"
	"document.addEventListener('keydown',function(e){if(e.key==='Escape')zoom(fs[0].o);\n"
	"if(e.key==='f'&&!e.ctrlKey&&!e.metaKey){var s=prompt('Find (regular expression):');if(s===null)return;\n"
	"var re;try{re=new RegExp(s)}catch(x){info.textContent='not a regular expression';return}\n"
	"fs.forEach(function(g){g.classList.toggle('hit',s!==''&&re.test(g.o.n))});}});\n"
	"})();\n"
	"]]></script>\n";

int flame_write(FILE *to, const char *folded, const char *title)
{
	struct flame f = { .to = to };
	double height;
	int r = build(&f, folded);

	if (r)
		goto out;
	height = HEAD + (f.depth + 1.0) * ROW + FOOT;
	fprintf(to, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" "
		"height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\">\n", WIDTH, height, WIDTH, height);
	fputs(style, to);
	fprintf(to, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text class=\"h\" x=\"%.0f\" y=\"22\">", MARGIN);
	print_xml(to, title, strlen(title));
	fprintf(to, "</text>\n<text class=\"s\" x=\"%.0f\" y=\"42\">%" PRIu64 " samples. A click zooms, Esc shows all, f finds."
		"</text>\n<text class=\"s\" id=\"info\" x=\"520\" y=\"42\"></text>\n", MARGIN, f.all);
	draw(&f, &f.nodes[0], 0, MARGIN, false);
	fputs(script, to);
	fputs("</svg>\n", to);
out:
	free(f.nodes);
	return r;
}
