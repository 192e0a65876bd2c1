//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/pager"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// pageRestores is how often each way of restoring is timed.
const pageRestores = 20

// touched are the pages that the guest reads after its restore: one in sixteen, so that no page comes with its neighbour.
var touched = tinyguest.Read{Flag: 20 << 20, From: 24 << 20, Count: 1500, Step: 64 << 10}

// pageByPage measures what it costs that memory comes page by page, with a guest that reads 1500 scattered pages and says what they were.
//
//   - uffd_fault: from when the helper hears of a missing page until the guest has it, the snapshot in the host's cache. Against what the kernel takes for the same with a mapping of the file,
//     when this process writes to a page.
//   - uffd_restore_warm, uffd_restore_cold: from the call of Restore until the guest has read them all, with a working set. Cold: the host has nothing of the snapshot's memory in its cache. Against
//     the same without a working set, interleaved.
//   - file_restore_cold: the same with the file mapped.
func pageByPage(ctx context.Context, parts setup.Parts) (_ []figure, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	volatile, err := os.MkdirTemp("/dev/shm", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(volatile)
	b := &pageBench{options: firecracker.Options{
		Firecracker: parts.Firecracker, StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(volatile, "run"), Kernel: filepath.Join(dir, "kernel"), MemoryMiB: memoryMiB, Bare: true,
		Slice: "/microvm-bench.slice",
	}}
	if err := tinyguest.Write(b.options.Kernel, tinyguest.Program{Text: marker + "\n", Read: &touched}); err != nil {
		return nil, err
	}
	if b.rt, err = firecracker.New(b.options); err != nil {
		return nil, err
	}
	defer func() {
		_, purged := firecracker.Purge(context.WithoutCancel(ctx), b.options)
		err = errors.Join(err, b.rt.Close(), purged)
	}()
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	return b.measure(ctx)
}

// pageBench is a snapshot whose guest reads memory as soon as it runs.
type pageBench struct {
	options  firecracker.Options
	rt       *microvm.Runtime
	snapshot string
	memory   string // Path of its file.
	set      string // Path of the working set,
	recorded []byte // and what is in it.
	sum      string // What the guest says.
	restored int
	faults   []time.Duration // of restores without a working set, warm
}

// prepare takes the snapshot, fills the memory that is read, and has a first machine record the working set.
func (b *pageBench) prepare(ctx context.Context) (err error) {
	if b.snapshot, err = warmSnapshot(ctx, b.rt); err != nil {
		return err
	}
	home := filepath.Join(b.options.StateDir, "snapshots", "all", b.snapshot)
	b.memory, b.set = filepath.Join(home, snapstore.Memory), filepath.Join(home, "workingset")
	if err := b.fill(); err != nil {
		return err
	}
	if _, err := b.restore(ctx, restoring{backend: microvm.MemoryUFFD}); err != nil {
		return err
	}
	b.recorded, err = os.ReadFile(b.set)
	return err
}

// fill writes to the memory what the guest is to read, and that it may. The file's time stays, by which it is known to be what was written.
func (b *pageBench) fill() error {
	info, err := os.Stat(b.memory)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(b.memory, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	content := make([]byte, int(touched.Count)*int(touched.Step))
	rand.NewChaCha8([32]byte{1}).Read(content)
	b.sum = touched.Sum(content)
	_, err = f.WriteAt(content, int64(touched.From))
	_, flagged := f.WriteAt(binary.LittleEndian.AppendUint64(nil, 1), int64(touched.Flag))
	return errors.Join(err, flagged, f.Sync(), os.Chtimes(b.memory, info.ModTime(), info.ModTime()))
}

// restoring is one way of restoring.
type restoring struct {
	backend microvm.MemoryBackend
	ahead   bool // with a working set
	cold    bool
}

func (b *pageBench) measure(ctx context.Context) ([]figure, error) {
	const uffd, file = microvm.MemoryUFFD, microvm.MemoryFile
	ways := []restoring{{uffd, true, false}, {uffd, false, false}, {uffd, true, true}, {uffd, false, true}, {file, true, true}, {file, false, true}}
	took := map[restoring][]time.Duration{}
	for i := range pageRestores + 1 {
		for _, way := range ways {
			one, err := b.restore(ctx, way)
			if err != nil {
				return nil, err
			}
			if i > 0 { // caches fill
				took[way] = append(took[way], one)
			}
		}
	}
	mapped, err := mappedFaults(b.memory)
	if err != nil {
		return nil, err
	}
	return []figure{
		newFigure("uffd_fault", b.faults, "a write to a private mapping of the file", mapped),
		newFigure("uffd_restore_warm", took[ways[0]], "without a working set", took[ways[1]]),
		newFigure("uffd_restore_cold", took[ways[2]], "without a working set", took[ways[3]]),
		newFigure("file_restore_cold", took[ways[4]], "without a working set", took[ways[5]]),
	}, nil
}

// restore times from the call until the guest has read all.
func (b *pageBench) restore(ctx context.Context, way restoring) (took time.Duration, err error) {
	if err := b.arrange(way); err != nil {
		return 0, err
	}
	b.restored++
	begin := time.Now()
	vm, _, err := b.rt.Restore(ctx, b.snapshot, fmt.Sprint("restored-", b.restored), &microvm.RestoreOptions{Backend: way.backend})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, vm.Destroy(ctx)) }()
	console, err := vm.Console(ctx, &microvm.ConsoleOptions{Follow: true})
	if err != nil {
		return 0, err
	}
	defer console.Close()
	line, err := bufio.NewReader(console).ReadString('\n')
	if err != nil {
		return 0, err
	}
	took = time.Since(begin)
	if strings.TrimSpace(line) != b.sum {
		return 0, fmt.Errorf("the guest has read %q, and not %q", line, b.sum)
	}
	if way == (restoring{backend: microvm.MemoryUFFD}) {
		err = b.addFaults(ctx, vm.UID())
	}
	return took, err
}

// arrange makes the working set and the host's cache what they are to be.
func (b *pageBench) arrange(way restoring) error {
	if err := os.RemoveAll(b.set); err != nil {
		return err
	}
	if way.ahead {
		if err := os.WriteFile(b.set, b.recorded, 0o600); err != nil {
			return err
		}
	}
	f, err := os.Open(b.memory)
	if err != nil {
		return err
	}
	defer f.Close()
	if !way.cold {
		_, err := io.Copy(io.Discard, f)
		return err
	}
	if err := unix.DropCache(f); err != nil {
		return err
	}
	if pages, err := unix.Cached(f, 0, memoryMiB<<20); err != nil || pages > 0 {
		return errors.Join(err, fmt.Errorf("%d pages of %s stay in the host's cache (is TMPDIR in memory?)", pages, b.memory))
	}
	return nil
}

// addFaults adds what the helper says of each fault of a machine.
func (b *pageBench) addFaults(ctx context.Context, uid string) error {
	found, err := filepath.Glob(filepath.Join(b.options.SocketDir, ".run", uid, "pager"))
	if err != nil || len(found) != 1 {
		return errors.Join(err, fmt.Errorf("the helper's directory is not found: %q", found))
	}
	stats, err := pager.Look(ctx, found[0])
	if err != nil {
		return err
	}
	for upto, count := range stats.Latency {
		for range count {
			b.faults = append(b.faults, time.Duration(upto))
		}
	}
	return nil
}

// mappedFaults times writes to pages of a private mapping, each of which the kernel copies from its cache.
func mappedFaults(path string) (took []time.Duration, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for range pageRestores {
		memory, err := syscall.Mmap(int(f.Fd()), 0, memoryMiB<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE)
		if err != nil {
			return nil, err
		}
		for at := touched.From; at < touched.From+uint64(touched.Count)*uint64(touched.Step); at += uint64(touched.Step) {
			begin := time.Now()
			memory[at]++
			took = append(took, time.Since(begin))
		}
		if err := syscall.Munmap(memory); err != nil {
			return nil, err
		}
	}
	return took, nil
}
