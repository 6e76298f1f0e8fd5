/* shim.c - see shim.h. */
#include "lib/shim.h"

bool shim_there(void)
{
	static int there = -1;

	if (there < 0)
		there = on_umbra() && probe_read(SHIM_DATA_VA, NULL) < 0;
	return there;
}

bool gates_there(void)
{
	if (!shim_there())
		return false;
	linux_user_init();
	hcall2(sched_op, SCHEDOP_yield, 0);	/* the VMM says so when it lets the guest run */
	return SHIM_DATA->to_user_ok;
}

bool need_shim(void)
{
	if (!shim_there())
		test_skip("no shim here");
	return shim_there();
}

bool need_gates(void)
{
	bool there = gates_there();

	if (!there)
		test_skip("no transitions inside the VM here");
	return there;
}
