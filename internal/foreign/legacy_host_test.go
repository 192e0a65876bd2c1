//go:build linux

package foreign

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// replaceLegacy loads a table of iptables-legacy (struct ipt_replace), whose entries are as many as before.
func replaceLegacy(table unix.LegacyTable) error {
	const replace, hooks = 64, 1<<1 | 1<<2 | 1<<3 // IPT_SO_SET_REPLACE; the hooks of the table filter
	_, order, err := legacy(table).entries()
	if err != nil {
		return err
	}
	counters := make([]byte, 16*len(order)) // those of the table that goes
	request := append([]byte("filter"), make([]byte, 32-len("filter"))...)
	request = append(request, number(hooks)...)
	request = append(request, number(uint32(len(order)))...)
	request = append(request, number(uint32(len(table.Entries)))...)
	for _, offset := range slices.Concat(table.Hooks[:], table.Policies[:]) {
		request = append(request, number(offset)...)
	}
	request = append(request, number(uint32(len(order)))...)
	request = binary.NativeEndian.AppendUint64(request, uint64(uintptr(unsafe.Pointer(&counters[0]))))
	request = append(request, table.Entries...)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_RAW)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd)
	err = syscall.SetsockoptString(fd, syscall.IPPROTO_IP, replace, string(request))
	runtime.KeepAlive(counters)
	return os.NewSyscallError("IPT_SO_SET_REPLACE", err)
}

// TestHostLegacyTable reads what this kernel has: nothing, then a table, then one that drops. What is not there is not made by it.
func TestHostLegacyTable(t *testing.T) {
	ring.Host(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	read := func() (found []Chain) {
		err := ns.Do(func() error {
			ruleset, err := Read()
			found = ruleset.Chains
			return errors.Join(err, ruleset.Legacy)
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for range 2 {
		if found := read(); len(found) != 0 {
			t.Fatalf("%+v in a new namespace", found)
		}
	}
	var table unix.LegacyTable
	err = ns.Do(func() (err error) {
		table, err = unix.ReadLegacyTable("filter") // the kernel makes it
		return err
	})
	if errors.Is(err, syscall.ENOPROTOOPT) || errors.Is(err, syscall.ENOENT) {
		t.Logf("this kernel has no iptables-legacy: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, policy := range []int32{legacyAccept, legacyDrop, legacyAccept} {
		e := entry(table.Entries[table.Policies[hookForward]:])
		binary.NativeEndian.PutUint32(e.target()[extensionInfo:], uint32(policy))
		if err := ns.Do(func() error { return replaceLegacy(table) }); err != nil {
			t.Fatal(err)
		}
		found := read()
		if len(found) != 1 || !found[0].Legacy || found[0].Judge(some).Dropped != (policy == legacyDrop) {
			t.Errorf("%+v with the policy %d", found, policy)
		}
	}
}
