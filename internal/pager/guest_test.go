//go:build linux

package pager

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// guestVariable makes a test program a process whose memory is served, as a VMM's is: it does what it is told by its standard input, and says what it sees.
const guestVariable = "MICROVM_TEST_PAGER_GUEST"

// Features of a userfaultfd that no VMM asks for.
const (
	eventFork  = 1 << 1
	eventUnmap = 1 << 6
)

// guestSpec is the variable's value.
type guestSpec struct {
	Socket   string
	Size     int
	Text     string // Sent instead of the truth. Optional.
	Plain    bool   // Sends a descriptor that is no userfaultfd.
	Twice    bool   // Sends two descriptors.
	None     bool   // Sends none.
	Features uint64 // Of the userfaultfd, beside removal.
	Outside  int    // Bytes that are registered beside what is said.
	Huge     bool   // Its memory is of huge pages.
}

// beGuest returns what to exit with.
func beGuest(text string) int {
	debug.SetGCPercent(-1) // nothing but orders stops the world while memory is missing
	var spec guestSpec
	err := json.Unmarshal([]byte(text), &spec)
	if err == nil {
		err = spec.run()
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func (g guestSpec) run() error {
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	if g.Huge {
		flags |= unix.MAP_HUGETLB | unix.MAP_HUGE_2MB
	}
	memory, err := unix.Mmap(-1, 0, g.Size+g.Outside, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return err
	}
	base := uint64(uintptr(unsafe.Pointer(&memory[0])))
	uffd, err := register(base, uint64(len(memory)), g.Features)
	if err != nil {
		return err
	}
	if err := g.shake(base, uffd); err != nil {
		return err
	}
	fmt.Println("ok")
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		var do string
		var at, length int
		fmt.Sscan(orders.Text(), &do, &at, &length)
		switch do {
		case "read":
			fmt.Printf("%x\n", memory[at:at+8])
		case "write":
			memory[at] = byte(length)
			fmt.Println("ok")
		case "drop":
			fmt.Println(unix.Madvise(memory[at:at+length], unix.MADV_DONTNEED))
		case "storm":
			fmt.Println(storm(memory, at))
		case "fork":
			if child, _, _ := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0); child == 0 {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		case "unmap":
			fmt.Println(unix.Munmap(memory))
		}
	}
	return nil
}

// storm gives pages up and reads them, and reads others meanwhile, half of each. It returns what is not as it has to be.
func storm(memory []byte, pages int) error {
	kept := make(chan error, 1)
	go func() {
		for n := pages / 2; n < pages; n++ {
			if got, want := string(memory[n*4096:n*4096+8]), fmt.Sprintf("%08x", n+1); got != want {
				kept <- fmt.Errorf("page %d begins with %q, want %q", n, got, want)
				return
			}
		}
		kept <- nil
	}()
	for n := range pages / 2 {
		page := memory[n*4096 : n*4096+4096]
		if err := unix.Madvise(page, unix.MADV_DONTNEED); err != nil {
			return err
		}
		if !isZero(page) {
			return fmt.Errorf("page %d was given up and begins with %q", n, page[:8])
		}
	}
	return <-kept
}

// register makes a userfaultfd as Firecracker's is.
func register(base, size, features uint64) (int, error) {
	const requestAPI, requestRegister, eventRemove, missing = 0xc018aa3f, 0xc020aa00, 1 << 3, 1
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	api := [3]uint64{0xaa, eventRemove | features, 0}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, requestAPI, uintptr(unsafe.Pointer(&api))); errno != 0 {
		return -1, errno
	}
	argument := [4]uint64{base, size, missing, 0}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, requestRegister, uintptr(unsafe.Pointer(&argument))); errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func (g guestSpec) shake(base uint64, uffd int) error {
	conn, err := net.Dial("unix", g.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	pageSize := 4096
	if g.Huge {
		pageSize = hugePage
	}
	text := fmt.Sprintf(`[{"base_host_virt_addr":%d,"size":%d,"offset":0,"page_size":%d}]`, base, g.Size, pageSize)
	if g.Text != "" {
		text = g.Text
	}
	fds := []int{uffd}
	switch {
	case g.Plain:
		fds = []int{0}
	case g.Twice:
		fds = append(fds, uffd)
	case g.None:
		fds = nil
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = conn.(*net.UnixConn).WriteMsgUnix([]byte(text), rights, nil)
	return err
}

// guest is such a process.
type guest struct {
	t       *testing.T
	process *vmm.Process
	orders  *os.File
	words   *bufio.Reader
	config  Config
}

// newGuest starts one, which has not connected: it waits until it is released.
func newGuest(t *testing.T, source Location, spec guestSpec) *guest {
	t.Helper()
	ring.Host(t)
	root := t.TempDir()
	spec.Socket = filepath.Join(root, "pager")
	value, err := json.Marshal(spec)
	must(t, err)
	// A shell that becomes the program: vmm.Command gives no standard input.
	in, out := filepath.Join(root, "in"), filepath.Join(root, "out")
	must(t, unix.Mkfifo(in, 0o600), unix.Mkfifo(out, 0o600))
	self, err := os.Executable()
	must(t, err)
	script := fmt.Sprintf("exec < %s > %s; read line; exec %s", in, out, self)
	process, err := vmm.Start(vmm.Command{Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{guestVariable + "=" + string(value), "GODEBUG=asyncpreemptoff=1"}}) // no signal has a thread that waits ask again
	must(t, err)
	g := &guest{t: t, process: process}
	g.orders, err = os.OpenFile(in, os.O_RDWR, 0)
	must(t, err)
	words, err := os.OpenFile(out, os.O_RDWR, 0)
	must(t, err)
	g.words = bufio.NewReader(words)
	t.Cleanup(func() {
		process.Kill()
		process.Wait(context.Background())
		process.Close()
		g.orders.Close()
		words.Close()
	})
	g.config = Config{Dir: t.TempDir(), VMM: process.Identity(), Root: root, Socket: "pager", Source: source}
	return g
}

// connect has it connect to its pager.
func (g *guest) connect() {
	g.t.Helper()
	g.tell("go")
	g.expect("ok")
}

func (g *guest) tell(order string, numbers ...any) {
	g.t.Helper()
	if _, err := fmt.Fprintln(g.orders, append([]any{order}, numbers...)...); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) expect(want string) {
	g.t.Helper()
	said := make(chan string, 1)
	go func() {
		line, _ := g.words.ReadString('\n')
		said <- strings.TrimSpace(line)
	}()
	select {
	case line := <-said:
		if line != want {
			g.t.Fatalf("it says %q, want %q", line, want)
		}
	case <-bounded(g.t).Done():
		g.t.Fatalf("it says nothing, want %q", want)
	}
}

// memoryFile writes a file each page of which begins with its number, from 1, in hexadecimal digits.
func memoryFile(t testing.TB, pages int) string {
	t.Helper()
	content := make([]byte, pages*4096)
	for n := range pages {
		copy(content[n*4096:], fmt.Sprintf("%08x", n+1))
	}
	path := filepath.Join(t.TempDir(), "memory")
	must(t, os.WriteFile(path, content, 0o600))
	return path
}

func pageText(n int) string { return fmt.Sprintf("%x", fmt.Sprintf("%08x", n+1)) }

const zeroText = "0000000000000000"

// expectStats waits for Stats: a page is counted a moment after it is there.
func expectStats(t *testing.T, config Config, want func(Stats) bool) (s Stats) {
	t.Helper()
	var err error
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(time.Millisecond) {
		if s, err = Look(bounded(t), config.Dir); err == nil && want(s) {
			return s
		}
	}
	t.Fatalf("%+v, %v", s, err)
	return s
}

func TestHostWhatIsGivenUpIsZero(t *testing.T) {
	g := newGuest(t, Location{Path: memoryFile(t, 64)}, guestSpec{Size: 64 * 4096})
	h := helped(t, g.config)
	g.connect()
	for _, n := range []int{0, 63, 7} {
		g.tell("read", n*4096)
		g.expect(pageText(n))
	}
	g.tell("write", 7*4096, 9)
	g.expect("ok")
	g.tell("drop", 6*4096, 2*4096) // one that is there, and one that never was
	g.expect("<nil>")
	for n, want := range map[int]string{5: pageText(5), 6: zeroText, 7: zeroText, 8: pageText(8)} {
		g.tell("read", n*4096)
		g.expect(want)
	}
	g.tell("drop", 10*4096, 4096)
	g.expect("<nil>")
	expectStats(t, g.config, func(s Stats) bool { return s.Removed == 3 })
	must(t, h.Kill(bounded(t)))
	g.tell("drop", 11*4096, 4096) // while there is no pager: it waits for the next one
	helped(t, g.config)
	g.expect("<nil>")
	for n, want := range map[int]string{9: pageText(9), 10: zeroText, 11: zeroText, 12: pageText(12), 5: pageText(5)} {
		g.tell("read", n*4096)
		g.expect(want)
	}
	expectStats(t, g.config, func(s Stats) bool { return s.Zeroed == 2 && s.Removed == 1 && s.TookOver })
}

// TestHostPrefetchLeavesWhatIsGivenUp while it copies the same pages.
func TestHostPrefetchLeavesWhatIsGivenUp(t *testing.T) {
	const pages = 4096
	set := filepath.Join(t.TempDir(), "set")
	order := make([]uint32, pages)
	for n := range order {
		order[n] = uint32(n)
	}
	must(t, writeSet(set, 4096, order))
	g := newGuest(t, Location{Path: memoryFile(t, pages)}, guestSpec{Size: pages * 4096})
	g.config.WorkingSet = set
	helped(t, g.config)
	g.connect()
	for n := 0; n < pages; n += 16 {
		g.tell("drop", n*4096, 8*4096)
		g.expect("<nil>")
		g.tell("read", n*4096)
		g.expect(zeroText)
	}
	expectStats(t, g.config, func(s Stats) bool { return s.Prefetch > 0 })
	for n := 0; n < pages; n += 16 {
		for _, zero := range []int{0, 1, 7} {
			g.tell("read", (n+zero)*4096)
			g.expect(zeroText)
		}
		for _, kept := range []int{8, 15} {
			g.tell("read", (n+kept)*4096)
			g.expect(pageText(n + kept))
		}
	}
}

func TestHostRecording(t *testing.T) {
	set, want := filepath.Join(t.TempDir(), "set"), []uint32{3, 1, 60}
	g := newGuest(t, Location{Path: memoryFile(t, 64)}, guestSpec{Size: 64 * 4096})
	g.config.Record = set
	helped(t, g.config)
	g.connect()
	read := func(pages ...uint32) {
		for _, n := range pages {
			g.tell("read", n*4096)
			g.expect(pageText(int(n)))
		}
	}
	read(want...)
	read(want[0]) // which is there
	must(t, FinishRecording(bounded(t), g.config.Dir))
	read(7)
	must(t, FinishRecording(bounded(t), g.config.Dir), g.process.Kill())
	waitPhase(t, g.config, PhaseEnded)
	if got, err := readSet(set, 4096); err != nil || !slices.Equal(got, want) {
		t.Errorf("%d, %v, want %d", got, err, want)
	}
}

// recorded has guests of the same memory read pages, each with the set that the ones before have left, and returns the set.
func recorded(t *testing.T, set string, pages ...int) []uint32 {
	t.Helper()
	g := newGuest(t, Location{Path: memoryFile(t, 64)}, guestSpec{Size: 64 * 4096})
	g.config.Record, g.config.WorkingSet = set, set
	helped(t, g.config)
	g.connect()
	for _, n := range pages {
		g.tell("read", n*4096)
		g.expect(pageText(n))
	}
	must(t, FinishRecording(bounded(t), g.config.Dir), g.process.Kill())
	waitPhase(t, g.config, PhaseEnded)
	got, err := readSet(set, 4096)
	must(t, err)
	return got
}

// TestHostRecordingIsMadeAnew where it is damaged, of another memory, or less than half of what is asked for.
func TestHostRecordingIsMadeAnew(t *testing.T) {
	set := filepath.Join(t.TempDir(), "set")
	for _, damage := range []func() error{
		func() error { return os.WriteFile(set, []byte("no set"), 0o600) },
		func() error { return writeSet(set, hugePage, []uint32{0}) },
		func() error { return writeSet(set, 4096, []uint32{0, 64}) },
	} {
		must(t, damage())
		if got := recorded(t, set, 9, 4); !slices.Equal(got, []uint32{9, 4}) {
			t.Errorf("%d", got)
		}
	}
	if got := recorded(t, set, 4, 20, 21); !slices.Equal(got, []uint32{9, 4}) {
		t.Errorf("a little besides: %d", got)
	}
	if got := recorded(t, set, 4, 20, 21, 22, 23); !slices.Equal(got[:2], []uint32{9, 4}) || !slices.Contains(got, 23) || len(got) > 6 || len(got) < 5 {
		t.Errorf("much besides: %d", got)
	}
}

func TestHostRecordingHasATime(t *testing.T) {
	set := filepath.Join(t.TempDir(), "set")
	g := newGuest(t, Location{Path: memoryFile(t, 64)}, guestSpec{Size: 64 * 4096})
	g.config.Record, g.config.RecordFor = set, time.Minute
	over := make(chan time.Time)
	g.config.after = func(d time.Duration) <-chan time.Time {
		if d != time.Minute {
			t.Errorf("it records for %s", d)
		}
		return over
	}
	p, err := Serve(g.config)
	must(t, err)
	defer p.Close()
	g.connect()
	for n := range 3 {
		g.tell("read", n*4096)
		g.expect(pageText(n))
	}
	close(over)
	waitFor(t, "the end of the time", func() bool { _, err := os.Stat(set); return err == nil })
	g.tell("read", 5*4096)
	g.expect(pageText(5))
	must(t, g.process.Kill(), p.Wait(bounded(t)))
	if got, err := readSet(set, 4096); err != nil || !slices.Equal(got, []uint32{0, 1, 2}) {
		t.Errorf("%d, %v", got, err)
	}
}

// TestHostRecordingIsNotHalf: who takes over does not know what was asked for before.
func TestHostRecordingIsNotHalf(t *testing.T) {
	set := filepath.Join(t.TempDir(), "set")
	g := newGuest(t, Location{Path: memoryFile(t, 64)}, guestSpec{Size: 64 * 4096})
	g.config.Record, g.config.WorkingSet = set, set
	h := helped(t, g.config)
	g.connect()
	g.tell("read", 0)
	g.expect(pageText(0))
	must(t, h.Kill(bounded(t)))
	helped(t, g.config)
	g.tell("read", 4096)
	g.expect(pageText(1))
	must(t, FinishRecording(bounded(t), g.config.Dir))
	if _, err := os.Stat(set); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it has written a set: %v", err)
	}
}

func TestHostAWorkingSetIsNotNeeded(t *testing.T) {
	beyond := filepath.Join(t.TempDir(), "set")
	must(t, writeSet(beyond, 4096, []uint32{1000, 5}))
	for path, prefetched := range map[string]uint64{"/nowhere": 0, beyond: 1} {
		g := newGuest(t, Location{Path: memoryFile(t, 64)}, guestSpec{Size: 64 * 4096})
		g.config.WorkingSet = path
		helped(t, g.config)
		g.connect()
		for _, n := range []int{5, 6} {
			g.tell("read", n*4096)
			g.expect(pageText(n))
		}
		waitFor(t, path, func() bool {
			stats, err := Look(bounded(t), g.config.Dir)
			return err == nil && stats.Copied+stats.Prefetched == 2 && stats.Prefetched <= prefetched
		})
	}
}

// TestHostStorm has events, faults and a working set at the same time, of a quick source and of a slow one.
func TestHostStorm(t *testing.T) {
	const pages = 8192
	set, path := filepath.Join(t.TempDir(), "set"), memoryFile(t, pages)
	order := make([]uint32, pages)
	for n := range order {
		order[n] = uint32(n ^ 0x1000)
	}
	must(t, writeSet(set, 4096, order))
	memory, err := os.ReadFile(path)
	must(t, err)
	for name, source := range map[string]Location{"quick": {Path: path}, "slow": {Kind: SourceChunks, Path: write(t, chunkFile(t, memory, 0))}} {
		for _, set := range []string{"", set} {
			g := newGuest(t, source, guestSpec{Size: pages * 4096})
			g.config.WorkingSet = set
			helped(t, g.config)
			g.connect()
			g.tell("storm", pages)
			g.expect("<nil>")
			stats := expectStats(t, g.config, func(s Stats) bool { return s.Removed == pages/2 })
			t.Logf("%s: %d faults, p50 %s, p99 %s, %d prefetched, %d deferred", name, stats.Faults, stats.Latency.Quantile(0.5), stats.Latency.Quantile(0.99), stats.Prefetched, stats.Deferred)
		}
	}
}

func TestHostHostileHandshakesEndTheVM(t *testing.T) {
	source := Location{Path: memoryFile(t, 64)}
	for name, c := range map[string]struct {
		spec guestSpec
		want string
	}{
		"garbage":           {guestSpec{Text: "]["}, "handshake is refused"},
		"beyond the memory": {guestSpec{Text: `[{"base_host_virt_addr":4096,"size":1048576,"offset":0,"page_size":4096}]`}, "beyond the memory"},
		"no userfaultfd":    {guestSpec{Plain: true}, "no userfaultfd"},
		"two descriptors":   {guestSpec{Twice: true}, "more than one descriptor"},
		"no descriptor":     {guestSpec{None: true}, "no descriptor"},
		"fault outside":     {guestSpec{Outside: 4096}, "not in the VM's memory"},
		"given up outside":  {guestSpec{Outside: 8192}, "which are not in the VM's memory"},
		"unmapped":          {guestSpec{Features: eventUnmap}, "that no VMM has cause for"},
		"forked":            {guestSpec{Features: eventFork}, "that no VMM has cause for"},
	} {
		t.Run(name, func(t *testing.T) {
			c.spec.Size = 64 * 4096
			g := newGuest(t, source, c.spec)
			h := helped(t, g.config)
			g.tell("go")
			switch {
			case c.spec.Outside == 4096:
				g.tell("read", 64*4096)
			case c.spec.Outside > 4096:
				g.tell("drop", 64*4096, 4096)
			case c.spec.Features == eventUnmap:
				g.tell("unmap")
			case c.spec.Features == eventFork:
				g.tell("fork")
			}
			if _, err := g.process.Wait(bounded(t)); err != nil {
				t.Fatal(err)
			}
			if why, err := Reason(g.config.Dir, g.config.VMM); err != nil || !strings.Contains(why, c.want) {
				t.Errorf("it was ended because %q, %v, want %q", why, err, c.want)
			}
			waitPhase(t, g.config, PhaseEnded)
			held, err := faultDescriptors(h.PID())
			if err != nil || len(held) > 1 {
				t.Errorf("the pager has the descriptors %v, %v", held, err)
			}
		})
	}
}

// reserveHuge has the host reserve huge pages until the test ends.
func reserveHuge(t *testing.T, pages int) {
	t.Helper()
	ring.Host(t)
	const path = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
	text, err := os.ReadFile(path)
	must(t, err)
	before, err := strconv.Atoi(strings.TrimSpace(string(text)))
	must(t, err, os.WriteFile(path, []byte(strconv.Itoa(before+pages)), 0))
	t.Cleanup(func() { must(t, os.WriteFile(path, []byte(strconv.Itoa(before)), 0)) })
	text, err = os.ReadFile(path)
	must(t, err)
	if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || now < before+pages {
		t.Skipf("the host has no %d huge pages to spare: %d, before it were %d, %v", pages, now, before, err)
	}
}

func TestHostHugePages(t *testing.T) {
	const pages, small = 4, hugePage / 4096
	reserveHuge(t, pages)
	set := filepath.Join(t.TempDir(), "set")
	must(t, writeSet(set, hugePage, []uint32{2}))
	g := newGuest(t, Location{Path: memoryFile(t, pages*small)}, guestSpec{Size: pages * hugePage, Huge: true})
	g.config.WorkingSet = set
	helped(t, g.config)
	g.connect()
	expectStats(t, g.config, func(s Stats) bool { return s.Prefetch > 0 })
	for _, n := range []int{0, small - 1, 2 * small, 3*small + 7} {
		g.tell("read", n*4096)
		g.expect(pageText(n))
	}
	g.tell("drop", 0, 2*hugePage) // one that is there, and one that never was
	g.expect("<nil>")
	for n, want := range map[int]string{0: zeroText, 2*small - 1: zeroText, 2 * small: pageText(2 * small)} {
		g.tell("read", n*4096)
		g.expect(want)
	}
	expectStats(t, g.config, func(s Stats) bool {
		return s.PageSize == hugePage && s.Pages == pages && s.Copied == 2 && s.Prefetched == 1 && s.Removed == 2 && s.Zeroed == 2
	})
}

// TestHostAnotherProcessIsNotServed though it is of the same user, and the VMM is all the same.
func TestHostAnotherProcessIsNotServed(t *testing.T) {
	g := newGuest(t, Location{Path: memoryFile(t, 64)}, guestSpec{Size: 64 * 4096})
	helped(t, g.config)
	other, err := net.Dial("unix", filepath.Join(g.config.Root, g.config.Socket))
	must(t, err, other.SetDeadline(time.Now().Add(patience)))
	if n, err := other.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("another process gets %d bytes, %v", n, err)
	}
	must(t, other.Close())
	g.connect()
	g.tell("read", 0)
	g.expect(pageText(0))
}

// TestHostPagerIsKilledTooEarly to know where the memory is.
func TestHostPagerIsKilledTooEarly(t *testing.T) {
	g := newGuest(t, Location{Path: memoryFile(t, 64)}, guestSpec{Size: 64 * 4096})
	h := helped(t, g.config)
	must(t, h.Kill(bounded(t)))
	again := helped(t, g.config) // before it has connected that is no harm
	g.connect()
	g.tell("read", 0)
	g.expect(pageText(0))
	must(t, again.Kill(bounded(t)), os.Remove(recordPath(g.config.Dir)))
	helped(t, g.config)
	if _, err := g.process.Wait(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if why, err := Reason(g.config.Dir, g.config.VMM); err != nil || !strings.Contains(why, "before it wrote down where the memory is") {
		t.Errorf("it was ended because %q, %v", why, err)
	}
}
