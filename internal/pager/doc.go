//go:build linux

// Package pager serves the memory of one restored machine page by page, in a process that outlives the driver: what a guest touches is copied from a [Source] at that moment.
//
// There are only four types. A [Config] says whose memory is served, and from where. A [Pager] serves it. A [Source] is where the memory is. [Stats] say what was done, and how fast.
//
// The VMM connects to the pager's socket when it is told to load a snapshot, says where its memory is, and hands over the descriptor of its faults. Whatever can't be served, such as an address
// that is in no region, or a source that can't be read, ends the VM: the pager writes down why ([Reason]) and kills the VMM. A guest never sees zeros in place of its memory; what
// it has given up itself, by a balloon, reads as zeros from then on.
//
//	DIR/regions.json   where the VMM's memory is; written before the first page is served
//	DIR/removed        which pages the guest has given up: a bit for each
//	DIR/reason.json    why the VM was ended, if it was
//	DIR/stats.json     the last Stats, once the VMM has ended
//	DIR/pager.sock     where questions are answered
//	DIR/pager.*        the helper's own files (package helper)
//
// # When a pager is killed
//
// The VMM has a descriptor of its own: its guest stands still at the next page that is missing, and never reads zeros. There are two ways on.
//
// [Start] with the same Config starts a new pager. It takes the descriptor out of the VMM, wakes all who wait, and goes on. So a pager can be upgraded too.
//
// Or the VM ends with its pager: [Watch] kills the VMM as soon as its pager has ended, and writes down why. It lasts as long as its caller; [StartWatch] leaves it to a helper of its own,
// for the time when no driver lives. A pager that is watched is not to be started again. (A VMM that was born in a PID namespace whose init is its pager would end with it without being watched. But
// then a jailed VMM can't be the init of its own: a child of another namespace than its parent's can't make one.)
//
// # Working sets
//
// A pager with Config.Record writes down which pages were asked for, in their order; one with Config.WorkingSet copies them before they are asked for. With the same path in both, the first machine of a
// memory records, and the next ones prefetch. [ReadAhead] is for those that map the file.
//
// # Caveats
//
// The VMM is not trusted: what it says is bounded and checked, and it can end nothing but itself.
//
// A pager that is killed after the VMM has connected and before the regions are written down ends the VM: the next pager sees that it can't go on. One that is killed at the
// moment when a page is given up may have the next one serve that page's old content, which the guest has no claim to see cleared.
//
// Memory of huge pages is served in huge pages.
package pager
