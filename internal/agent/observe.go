//go:build linux

package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	lookEvery = 5 * time.Second
	maxGuess  = 16 // kills that are told at once without a word of the kernel's log
)

// Observe tells of processes that the kernel kills for want of memory, and of a disk that fills up, until ctx ends. The first process of a system calls it: what it tells is of the
// whole system.
func (s *Server) Observe(ctx context.Context) {
	o := &observer{tell: s.Tell, killed: killedEver, space: func() (wire.Disk, error) { return space("/") }}
	lines := make(chan string)
	if log, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
		log.Seek(0, io.SeekEnd) // what was before is not about commands
		stop := context.AfterFunc(ctx, func() { log.Close() })
		defer stop()
		go readLog(ctx, log, lines)
	}
	o.run(ctx, lines, lookEvery)
}

// readLog reads the kernel's log, a record at a time (Documentation/ABI/testing/dev-kmsg).
func readLog(ctx context.Context, log io.Reader, lines chan<- string) {
	record := make([]byte, 8<<10) // at least that, or reading fails
	for {
		n, err := log.Read(record)
		if errors.Is(err, syscall.EPIPE) { // records were overwritten before they were read: killedEver tells
			continue
		}
		if err != nil {
			return
		}
		if text, ok := kernelText(record[:n]); ok {
			select {
			case lines <- text:
			case <-ctx.Done():
				return
			}
		}
	}
}

// kernelText returns what a record says if the kernel itself has said it: root's programs write to its log too, and with another facility.
func kernelText(record []byte) (string, bool) {
	prefix, rest, ok := bytes.Cut(record, []byte(";"))
	priority, _, _ := bytes.Cut(prefix, []byte(","))
	number, err := strconv.Atoi(string(priority))
	if !ok || err != nil || number>>3 != 0 {
		return "", false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(line), true
}

// observer makes events of what the kernel says and counts.
type observer struct {
	tell   func(wire.SystemEvent)
	killed func() (uint64, error) // since the system began
	space  func() (wire.Disk, error)

	told   uint64 // of those
	unsaid uint64 // that were counted at the last look, and that the log had not told
	victim wire.OOMKill
	level  string // of the disk
}

func (o *observer) run(ctx context.Context, lines <-chan string, every time.Duration) {
	o.told, _ = o.killed()
	o.level = wire.EventDiskOK
	tick := time.NewTicker(every)
	defer tick.Stop()
	o.lookAtDisk()
	for {
		select {
		case <-ctx.Done():
			return
		case line := <-lines:
			o.hear(line)
		case <-tick.C:
			o.count()
			o.lookAtDisk()
		}
	}
}

// hear takes a line of the kernel's log. What it says of a kill is believed when the kernel has counted one.
func (o *observer) hear(line string) {
	if victim, ok := victimOf(line); ok {
		o.victim = victim
		return
	}
	pid, name, ok := killOf(line)
	if !ok {
		return
	}
	if killed, err := o.killed(); err == nil && killed <= o.told {
		return
	}
	kill := wire.OOMKill{PID: pid, Name: name}
	if o.victim.PID == pid {
		kill.Cgroup = o.victim.Cgroup
	}
	o.told++
	o.tell(wire.SystemEvent{Kind: wire.EventOOMKill, OOM: &kill})
}

// count tells of kills that were counted at two looks, and that the log has not told.
func (o *observer) count() {
	killed, err := o.killed()
	if err != nil || killed <= o.told {
		o.unsaid = 0
		return
	}
	if o.unsaid == 0 { // the log may come yet
		o.unsaid = killed
		return
	}
	for range min(o.unsaid-min(o.unsaid, o.told), maxGuess) {
		o.tell(wire.SystemEvent{Kind: wire.EventOOMKill, OOM: &wire.OOMKill{}})
	}
	o.told, o.unsaid = max(o.told, o.unsaid), 0
}

// victimOf reads the line before a kill, which names the cgroup: oom-kill:constraint=…,task_memcg=CGROUP,task=NAME,pid=PID,uid=UID.
func victimOf(line string) (wire.OOMKill, bool) {
	rest, ok := strings.CutPrefix(line, "oom-kill:")
	if !ok {
		return wire.OOMKill{}, false
	}
	_, rest, ok = strings.Cut(rest, ",task_memcg=")
	at, end := strings.LastIndex(rest, ",task="), strings.LastIndex(rest, ",pid=")
	if !ok || at < 0 || end < at {
		return wire.OOMKill{}, false
	}
	text, _, _ := strings.Cut(rest[end+len(",pid="):], ",")
	pid, err := strconv.Atoi(text)
	return wire.OOMKill{PID: pid, Cgroup: rest[:at]}, err == nil
}

// killOf reads a kill: Out of memory: Killed process PID (NAME) total-vm:….
func killOf(line string) (pid int, name string, ok bool) {
	if !strings.HasPrefix(line, "Out of memory") && !strings.HasPrefix(line, "Memory cgroup out of memory") {
		return 0, "", false
	}
	_, rest, ok := strings.Cut(line, ": Killed process ")
	number, rest, named := strings.Cut(rest, " (")
	end := strings.LastIndex(rest, ") total-vm:")
	pid, err := strconv.Atoi(number)
	if !ok || !named || end < 0 || err != nil {
		return 0, "", false
	}
	return pid, rest[:end], true
}

// killedEver returns how many processes the kernel has killed for want of memory (Linux 4.13).
func killedEver() (uint64, error) {
	f, err := os.Open("/proc/vmstat")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			return strconv.ParseUint(text, 10, 64)
		}
	}
	return 0, errors.Join(errors.New("/proc/vmstat has no oom_kill"), lines.Err())
}
