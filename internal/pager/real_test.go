//go:build linux

package pager

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/jail"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// patience is for what takes milliseconds.
const patience = 20 * time.Second

const (
	memoryMiB = 64
	firstPage = 24 << 20 // of those that the guest reads
	pageCount = 8000
)

// reads is what the guest does with its memory after a restore: a number of each page.
func reads() tinyguest.Read {
	return tinyguest.Read{Flag: 20 << 20, From: firstPage, Count: pageCount, Step: 4096}
}

// machine is a VMM of a test, in a directory of its own.
type machine struct {
	*api.Client
	process *vmm.Process
	dir     string
}

// spawn starts one that has no guest yet.
func spawn(t testing.TB) machine {
	t.Helper()
	p := ring.Real(t)
	dir := t.TempDir()
	console, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	must(t, os.WriteFile(filepath.Join(dir, "log"), nil, 0o600))
	args := []string{"--api-sock", "api.sock", "--id", "test", "--log-path", "log"}
	return started(t, dir, dir, vmm.Command{Path: p.Firecracker, Args: args, Dir: dir, Stdout: console, PIDNamespace: true})
}

// started waits for a VMM whose socket is in root.
func started(t testing.TB, dir, root string, c vmm.Command) machine {
	t.Helper()
	process, err := vmm.Start(c)
	must(t, err)
	m := machine{api.NewUnix(filepath.Join(root, "api.sock")), process, dir}
	t.Cleanup(func() {
		m.Client.Close()
		process.Kill()
		process.Wait(context.Background())
		process.Close()
	})
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		_, err := m.GetVersion(bounded(t))
		if err == nil {
			return m
		}
		if !errors.Is(err, api.ErrGone) || time.Since(begin) > patience {
			t.Fatal(err)
		}
	}
}

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, calls ...error) {
	t.Helper()
	if err := errors.Join(calls...); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t testing.TB, what string, so func() bool) {
	t.Helper()
	for begin := time.Now(); !so(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func (m machine) console() string {
	text, _ := os.ReadFile(filepath.Join(m.dir, "console"))
	return string(text)
}

// snapshot is one of a guest that waits to be told to read its memory.
type snapshot struct{ state, memory, sum string }

// takeSnapshot makes one, whose memory is random and which reads it as soon as it runs.
func takeSnapshot(t testing.TB) snapshot {
	t.Helper()
	m, ctx, read := spawn(t), bounded(t), reads()
	must(t, tinyguest.Write(filepath.Join(m.dir, "kernel"), tinyguest.Program{Text: "waits\n", Read: &read, After: tinyguest.Reset}),
		m.PutMachineConfig(ctx, api.MachineConfig{VCPUCount: 1, MemSizeMiB: memoryMiB}),
		m.PutBootSource(ctx, api.BootSource{KernelImagePath: "kernel"}),
		m.PutBalloon(ctx, api.Balloon{}),
		m.Action(ctx, api.InstanceStart))
	waitFor(t, "the guest", func() bool { return strings.Contains(m.console(), "waits\n") })
	must(t, m.PatchVM(ctx, api.VMPaused), m.CreateSnapshot(ctx, api.SnapshotCreate{SnapshotPath: "state", MemFilePath: "memory"}), m.process.Kill())
	s := snapshot{state: filepath.Join(m.dir, "state"), memory: filepath.Join(m.dir, "memory")}
	content := make([]byte, pageCount*4096)
	rand.NewChaCha8([32]byte{1}).Read(content)
	s.sum = read.Sum(content)
	f, err := os.OpenFile(s.memory, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(content, firstPage)
	_, err2 := f.WriteAt(binary.LittleEndian.AppendUint64(nil, 1), int64(read.Flag))
	must(t, err, err2, f.Close())
	return s
}

// load has a fresh VMM become the snapshot.
func (m machine) load(t testing.TB, s snapshot, kind, path string) error {
	t.Helper()
	return m.LoadSnapshot(bounded(t), api.SnapshotLoad{SnapshotPath: s.state, MemBackend: &api.MemBackend{BackendType: kind, BackendPath: path}, ResumeVM: true})
}

// finish waits for the guest's own end, and expects its sum.
func (m machine) finish(t testing.TB, s snapshot) {
	t.Helper()
	status, err := m.process.Wait(bounded(t))
	if err != nil || !status.Known || status.Signal != 0 || status.Code != 0 {
		t.Errorf("the VMM has ended with %+v, %v, and not by its guest", status, err)
	}
	if !strings.Contains(m.console(), s.sum+"\n") {
		t.Errorf("the guest says %q, want %s", m.console(), s.sum)
	}
}

// serves is a Config for a machine.
func (m machine) serves(t testing.TB, source Location) Config {
	t.Helper()
	return Config{Dir: t.TempDir(), VMM: m.process.Identity(), Root: m.dir, Socket: "pager", Source: source}
}

// helped has a helper serve it, which ends with the test.
func helped(t testing.TB, config Config) *helper.Handle {
	t.Helper()
	begin := time.Now()
	h, err := Start(bounded(t), "", nil, config)
	t.Logf("a pager is there in %s", time.Since(begin))
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(config.Dir, "pager.log"))
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(h.Close(), Stop(ctx, config.Dir)); err != nil {
			t.Error(err)
		}
	})
	return h
}

func waitPhase(t testing.TB, config Config, phase string) {
	t.Helper()
	waitFor(t, "phase "+phase, func() bool { stats, err := Look(bounded(t), config.Dir); return err == nil && stats.Phase == phase })
}

func detail(t testing.TB, value any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(value)
	must(t, err)
	return text
}

func TestRealRestoreIsAsFromTheFile(t *testing.T) {
	s := takeSnapshot(t)
	byFile := spawn(t)
	must(t, byFile.load(t, s, "File", s.memory))
	byFile.finish(t, s)

	m := spawn(t)
	config := m.serves(t, Location{Path: s.memory})
	h := helped(t, config)
	must(t, m.load(t, s, "Uffd", "pager"))
	m.finish(t, s)
	waitPhase(t, config, PhaseEnded)
	if own := ownMemory(t, h.PID()); own > memoryMiB<<10/2 {
		t.Errorf("the pager has %d KiB for a memory of %d MiB", own, memoryMiB)
	}
	stats := expectStats(t, config, func(s Stats) bool {
		return s.Copied >= pageCount && s.Faults == s.Copied+s.Present && s.Zeroed == 0 && s.Pages == memoryMiB<<8 && s.Latency.Count() == s.Faults
	})
	if why, err := Reason(config.Dir, config.VMM); why != "" || err != nil {
		t.Errorf("a VM that has ended by itself was ended for a reason: %q, %v", why, err)
	}
	t.Logf("uffd_fault: p50 %s, p99 %s of %d", stats.Latency.Quantile(0.5), stats.Latency.Quantile(0.99), stats.Faults)
}

// ownMemory returns how many KiB a process has for itself.
func ownMemory(t *testing.T, pid int) (kib int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	if _, err := fmt.Sscan(rest, &kib); err != nil || kib == 0 {
		t.Fatalf("%d KiB, %v", kib, err)
	}
	t.Logf("the pager has %d KiB", kib)
	return kib
}

func TestRealSources(t *testing.T) {
	s := takeSnapshot(t)
	dir := t.TempDir()
	memory, err := os.ReadFile(s.memory)
	must(t, err)
	chunks, err := os.Create(filepath.Join(dir, "chunks"))
	must(t, err)
	must(t, WriteChunks(t.Context(), chunks, bytes.NewReader(memory), int64(len(memory)), nil), chunks.Close())
	below, above := filepath.Join(dir, "below"), filepath.Join(dir, "above")
	writeHalves(t, memory, below, above)
	for name, source := range map[string]Location{
		"chunks": {Kind: SourceChunks, Path: chunks.Name()},
		"diff":   {Kind: SourceDiff, Path: above, Over: &Location{Path: below}},
	} {
		t.Run(name, func(t *testing.T) {
			m := spawn(t)
			helped(t, m.serves(t, source))
			must(t, m.load(t, s, "Uffd", "pager"))
			m.finish(t, s)
		})
	}
}

// writeHalves writes every other 64 KiB to above, and the rest, and what is wrong, to below.
func writeHalves(t *testing.T, memory []byte, below, above string) {
	t.Helper()
	const piece = 64 << 10
	wrong := bytes.Clone(memory)
	f, err := os.Create(above)
	must(t, err, f.Truncate(int64(len(memory))))
	for at := 0; at < len(memory); at += 2 * piece {
		_, err := f.WriteAt(memory[at:at+piece], int64(at))
		must(t, err)
		rand.NewChaCha8([32]byte{2}).Read(wrong[at : at+piece])
	}
	must(t, f.Close(), os.WriteFile(below, wrong, 0o600))
}

// TestRealPagerIsKilled in the middle, while a page is being read.
func TestRealPagerIsKilled(t *testing.T) {
	s, m := takeSnapshot(t), spawn(t)
	stuck := filepath.Join(t.TempDir(), "stuck")
	config := m.serves(t, Location{Kind: "broken", Path: s.memory, Detail: detail(t, brokenAfter{Hang: pageCount / 2, Tell: stuck})})
	h := helped(t, config)
	must(t, m.load(t, s, "Uffd", "pager"))
	waitFor(t, "the middle", func() bool { _, err := os.Stat(stuck); return err == nil })
	must(t, h.Kill(bounded(t)))
	if m.console() != "" || !vmm.Runs(config.VMM) {
		t.Fatalf("the guest says %q without its memory, lives: %t", m.console(), vmm.Runs(config.VMM))
	}
	config.Source = Location{Path: s.memory}
	helped(t, config)
	m.finish(t, s)
	waitPhase(t, config, PhaseEnded)
	stats, err := Look(bounded(t), config.Dir)
	if err != nil || !stats.TookOver || stats.Copied < pageCount/2-100 || stats.Copied > pageCount/2+100 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// TestRealPagersAreKilled whatever they do, but for the first: it holds the guest up until somebody comes.
func TestRealPagersAreKilled(t *testing.T) {
	s, m := takeSnapshot(t), spawn(t)
	stuck := filepath.Join(t.TempDir(), "stuck")
	config := m.serves(t, Location{Kind: "broken", Path: s.memory, Detail: detail(t, brokenAfter{Hang: pageCount / 20, Tell: stuck})})
	h := helped(t, config)
	must(t, m.load(t, s, "Uffd", "pager"))
	waitFor(t, "the beginning", func() bool { _, err := os.Stat(stuck); return err == nil })
	config.Source = Location{Path: s.memory}
	killed := 0
	for killed < 20 && vmm.Runs(config.VMM) {
		time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond) // at any moment
		must(t, h.Kill(bounded(t)))
		killed++
		next, err := Start(bounded(t), "", nil, config)
		if errors.Is(err, vmm.ErrGone) || !vmm.Runs(config.VMM) {
			break
		}
		must(t, err)
		defer next.Close()
		h = next
	}
	m.finish(t, s)
	t.Logf("%d pagers were killed", killed)
	if why, err := Reason(config.Dir, config.VMM); why != "" || err != nil || killed == 0 {
		t.Errorf("reason %q, %v", why, err)
	}
}

func TestRealSourceFails(t *testing.T) {
	s, m := takeSnapshot(t), spawn(t)
	config := m.serves(t, Location{Kind: "broken", Path: s.memory, Detail: detail(t, brokenAfter{Fail: pageCount / 2})})
	helped(t, config)
	must(t, m.load(t, s, "Uffd", "pager"))
	expectReason(t, m, config, "the disk has a hole")
	if m.console() != "" {
		t.Errorf("the guest says %q of half its memory", m.console())
	}
}

// expectReason waits for the VMM's end, and why.
func expectReason(t *testing.T, m machine, config Config, want string) {
	t.Helper()
	if status, err := m.process.Wait(bounded(t)); err != nil || status.Signal == 0 {
		t.Errorf("the VMM has ended with %+v, %v", status, err)
	}
	if why, err := Reason(config.Dir, config.VMM); err != nil || !strings.Contains(why, want) {
		t.Errorf("it was ended because %q, %v, want %q", why, err, want)
	}
}

// TestRealWatched is of a VM that ends with its pager.
func TestRealWatched(t *testing.T) {
	s := takeSnapshot(t)
	for name, begin := range map[string]func(*testing.T, Config){
		"by a helper": func(t *testing.T, config Config) {
			h, err := StartWatch(bounded(t), "", nil, config.Dir, config.VMM)
			must(t, err)
			t.Cleanup(func() { h.Close() })
		},
		"by the driver": func(t *testing.T, config Config) {
			watched := make(chan error, 1)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			go func() { defer cancel(); watched <- Watch(ctx, config.Dir, config.VMM) }()
			t.Cleanup(func() {
				if err := <-watched; err != nil {
					t.Error(err)
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := spawn(t)
			stuck := filepath.Join(t.TempDir(), "stuck")
			config := m.serves(t, Location{Kind: "broken", Path: s.memory, Detail: detail(t, brokenAfter{Hang: pageCount / 2, Tell: stuck})})
			h := helped(t, config)
			begin(t, config)
			must(t, m.load(t, s, "Uffd", "pager"))
			waitFor(t, "the middle", func() bool { _, err := os.Stat(stuck); return err == nil })
			if !vmm.Runs(config.VMM) {
				t.Error("it ends before its pager")
			}
			must(t, h.Kill(bounded(t)))
			expectReason(t, m, config, "its pager has ended")
		})
	}
}

func TestRealPrefetch(t *testing.T) {
	s, set := takeSnapshot(t), filepath.Join(t.TempDir(), "set")
	m := spawn(t)
	config := m.serves(t, Location{Path: s.memory})
	config.Record = set
	helped(t, config)
	must(t, m.load(t, s, "Uffd", "pager"))
	m.finish(t, s)
	waitPhase(t, config, PhaseEnded)

	again := spawn(t)
	config = again.serves(t, Location{Path: s.memory})
	config.WorkingSet = set
	helped(t, config)
	must(t, again.LoadSnapshot(bounded(t), api.SnapshotLoad{SnapshotPath: s.state, MemBackend: &api.MemBackend{BackendType: "Uffd", BackendPath: "pager"}}))
	waitFor(t, "the working set", func() bool { stats, err := Look(bounded(t), config.Dir); return err == nil && stats.Prefetch > 0 })
	before, err := Look(bounded(t), config.Dir)
	must(t, err, again.PatchVM(bounded(t), api.VMResumed))
	again.finish(t, s)
	waitPhase(t, config, PhaseEnded)
	after, err := Look(bounded(t), config.Dir)
	if err != nil || before.Prefetched < pageCount || after.Faults > 100 || after.Copied+after.Prefetched < pageCount {
		t.Errorf("before %+v\nafter %+v, %v", before, after, err)
	}
	t.Logf("%d pages prefetched in %s, %d faults", before.Prefetched, before.Prefetch, after.Faults)
}

// TestRealJailed is of a VMM of another user, in a root of its own.
func TestRealJailed(t *testing.T) {
	const user = 61234
	s, p, dir := takeSnapshot(t), ring.Real(t), t.TempDir()
	must(t, os.Chmod(s.state, 0o444))
	l := jail.Layout{Base: filepath.Join(dir, "jails"), Exec: p.Firecracker, ID: "test"}
	must(t, l.Build(t.Context(), jail.Files{Shared: map[string]string{"state": s.state}, Log: "log", UID: user, GID: user}))
	console, err := os.Create(filepath.Join(dir, "console"))
	must(t, err)
	defer console.Close()
	c := l.Command(p.Jailer, user, user, 1<<30, "--api-sock", "api.sock", "--log-path", "log")
	c.Stdout = console
	m := started(t, dir, l.Root(), c)
	config := m.serves(t, Location{Path: s.memory})
	config.Root, config.UID, config.GID = l.Root(), user, user
	s.state = "img/state"
	h := helped(t, config)
	// Another process of the host's is not served, whoever it is, and the VMM is all the same.
	other, err := jail.Dial(bounded(t), l.Root(), "pager", user)
	must(t, err)
	if n, err := other.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("another process gets %d bytes, %v", n, err)
	}
	must(t, other.Close())
	must(t, m.LoadSnapshot(bounded(t), api.SnapshotLoad{SnapshotPath: s.state, MemBackend: &api.MemBackend{BackendType: "Uffd", BackendPath: "pager"}}))
	waitPhase(t, config, PhaseServing)
	must(t, h.Kill(bounded(t)))
	helped(t, config)
	must(t, m.PatchVM(bounded(t), api.VMResumed))
	m.finish(t, s)
}

// TestRealMemoryIsTheSame byte for byte: a snapshot of a machine that has not run since its restore reads all of it.
func TestRealMemoryIsTheSame(t *testing.T) {
	s, m := takeSnapshot(t), spawn(t)
	helped(t, m.serves(t, Location{Path: s.memory}))
	ctx := bounded(t)
	must(t, m.LoadSnapshot(ctx, api.SnapshotLoad{SnapshotPath: s.state, MemBackend: &api.MemBackend{BackendType: "Uffd", BackendPath: "pager"}}),
		m.CreateSnapshot(ctx, api.SnapshotCreate{SnapshotPath: "state", MemFilePath: "memory"}))
	want, err := os.ReadFile(s.memory)
	got, err2 := os.ReadFile(filepath.Join(m.dir, "memory"))
	must(t, err, err2)
	if len(got) != len(want) {
		t.Fatalf("%d bytes of memory have become %d", len(want), len(got))
	}
	const generation = 16 // bytes, which Firecracker renews: the machine is another one now
	var others []int
	for at := range want {
		if got[at] != want[at] {
			others = append(others, at)
		}
	}
	if n := len(others); n > generation || n > 0 && others[n-1]-others[0] >= generation {
		t.Errorf("%d bytes are others, from %#x to %#x", n, others[0], others[n-1])
	}
}
