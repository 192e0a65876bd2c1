//go:build linux

package unix

import (
	"encoding/binary"
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LegacyTable is a table of iptables-legacy as the kernel has it (struct ipt_getinfo and ipt_get_entries, include/uapi/linux/netfilter_ipv4/ip_tables.h).
type LegacyTable struct {
	Hooks, Policies [5]uint32 // Where each hook's chain begins in Entries, and where the entry is that is its policy.
	Entries         []byte    // struct ipt_entry, one behind the other.
}

const (
	legacyGetInfo, legacyGetEntries = 64, 65 // IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES
	legacyNameSize                  = 32     // XT_TABLE_MAXNAMELEN
	legacyInfoSize                  = legacyNameSize + 4 + 5*4 + 5*4 + 4 + 4
	legacyEntriesHead               = legacyNameSize + 8 // the size, and what aligns the entries
	mostLegacyEntries               = 16 << 20
)

// ReadLegacyTable reads a table of iptables-legacy in the calling thread's network namespace (getsockopt(2)). It needs CAP_NET_ADMIN. A table that is not there yet, the
// kernel makes: /proc/net/ip_tables_names says which are.
func ReadLegacyTable(name string) (LegacyTable, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return LegacyTable{}, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	const attempts = 5
	for range attempts {
		var table LegacyTable
		if table, err = readLegacyTable(fd, name); !errors.Is(err, unix.EAGAIN) { // else it was changed in between
			return table, err
		}
	}
	return LegacyTable{}, err
}

func readLegacyTable(fd int, name string) (table LegacyTable, err error) {
	info := make([]byte, legacyInfoSize)
	copy(info[:legacyNameSize-1], name)
	if err := getsockopt(fd, unix.SOL_IP, legacyGetInfo, info); err != nil {
		return table, os.NewSyscallError("IPT_SO_GET_INFO", err)
	}
	at := legacyNameSize + 4
	for _, field := range []*[5]uint32{&table.Hooks, &table.Policies} {
		for i := range field {
			field[i] = binary.NativeEndian.Uint32(info[at:])
			at += 4
		}
	}
	size := binary.NativeEndian.Uint32(info[at+4:])
	if size > mostLegacyEntries {
		return table, errors.New("IPT_SO_GET_ENTRIES: there are too many rules")
	}
	entries := make([]byte, legacyEntriesHead+size)
	copy(entries[:legacyNameSize-1], name)
	binary.NativeEndian.PutUint32(entries[legacyNameSize:], size)
	if err := getsockopt(fd, unix.SOL_IP, legacyGetEntries, entries); err != nil {
		return table, os.NewSyscallError("IPT_SO_GET_ENTRIES", err)
	}
	table.Entries = entries[legacyEntriesHead:]
	return table, nil
}

// getsockopt reads an option into a buffer that says what is asked for, and has just the right size.
func getsockopt(fd, level, option int, buffer []byte) error {
	length := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
