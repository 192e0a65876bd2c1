//go:build linux

// Command labinit is the first process of the lab: it runs the jobs that it is told, and powers the lab off.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/agent"
	"github.com/tangle-network/microvm-runtime/internal/testing/lab"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("labinit:", err)
	}
	syscall.Sync()
	agent.Reset()
}

func run() error {
	if err := agent.Boot(); err != nil {
		return err
	}
	for device, dir := range map[string]string{"/dev/vdc": lab.Cache, "/dev/vdd": lab.Payload, "/dev/vde": lab.Scratch} {
		if err := errors.Join(agent.AwaitDisk(device), os.MkdirAll(dir, 0o755)); err != nil {
			return err
		}
		flags, data := uintptr(syscall.MS_RDONLY), "noload"
		if dir == lab.Scratch {
			flags, data = 0, ""
		}
		if err := syscall.Mount(device, dir, "ext4", flags, data); err != nil {
			return fmt.Errorf("mount %s: %w", device, err)
		}
	}
	events, err := openPort()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(lab.Payload, "jobs.json"))
	if err != nil {
		return err
	}
	var jobs []lab.Job
	if err := json.Unmarshal(text, &jobs); err != nil {
		return err
	}
	uptime, _ := os.ReadFile("/proc/uptime")
	seconds, _, _ := strings.Cut(string(uptime), " ")
	events.send(lab.Event{Boot: seconds})
	go events.beat()
	guests, err := watchGuests()
	if err != nil {
		return fmt.Errorf("watch guests: %w", err)
	}
	go guests.tell(events)
	for orders := bufio.NewReader(events.file); ; {
		var i int
		if _, err := fmt.Fscanln(orders, &i); err != nil {
			return fmt.Errorf("which job comes next: %w", err)
		}
		if i == lab.NoJob {
			return events.file.Close()
		}
		code := runJob(events, i, jobs[i])
		if shown := guests.crashed(); shown != "" { // what it says counts for nothing, whether it has been told or not
			events.send(lab.Event{Lost: shown})
		}
		events.send(lab.Event{Job: i, Exit: &code})
	}
}

// port is the way out of the lab.
type port struct {
	mu   sync.Mutex
	file *os.File
}

func openPort() (*port, error) {
	for range 1000 {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, name := range names {
			text, _ := os.ReadFile(name)
			if strings.TrimSpace(string(text)) == lab.Port {
				f, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(name))), os.O_RDWR, 0)
				if err == nil {
					return &port{file: f}, nil
				}
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, errors.New("the port for events is not there")
}

func (p *port) send(event lab.Event) {
	line, _ := json.Marshal(event)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.file.Write(append(line, '\n'))
}

// beat says that the lab lives, for as long as it does.
func (p *port) beat() {
	for range time.Tick(lab.Beat) {
		p.send(lab.Event{Beat: true})
	}
}

// output is what a job writes.
type output struct {
	port *port
	job  int
}

func (o output) Write(p []byte) (int, error) {
	for part := p; len(part) > 0; {
		n := min(len(part), 32<<10)
		o.port.send(lab.Event{Job: o.job, Data: part[:n]})
		part = part[n:]
	}
	return len(p), nil
}

func runJob(events *port, i int, job lab.Job) int {
	out := output{events, i}
	ctx, cancel := context.WithTimeout(context.Background(), job.Timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { // the deadline: say what hangs before it is killed
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			fmt.Fprintf(out, "\nlab: %s has run for %v\n%s", job.Name, job.Timeout, hanging())
		}
	})
	defer stop()
	cmd := exec.Command(job.Program, job.Args...)
	cmd.Dir = lab.Scratch
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TMPDIR=" + lab.Scratch, "MICROVM_CACHE=" + lab.Cache}, job.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	signal.Reset()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(out, err)
		return 127
	}
	kill := time.AfterFunc(job.Timeout+time.Second, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer kill.Stop()
	cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// hanging says where every thread of every program waits.
func hanging() string {
	var b strings.Builder
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/*")
	for _, task := range tasks {
		var facts []string
		for _, file := range []string{"comm", "wchan", "syscall"} {
			text, _ := os.ReadFile(filepath.Join(task, file))
			facts = append(facts, strings.TrimSpace(string(text)))
		}
		if facts[2] != "" && facts[2] != "running" || facts[1] != "0" {
			fmt.Fprintln(&b, task, strings.Join(facts, " "))
		}
	}
	logs, _ := filepath.Glob("/scratch/*/*/run/*/firecracker.log")
	for _, log := range logs {
		text, _ := os.ReadFile(log)
		fmt.Fprintf(&b, "%s:\n%s\n", log, text)
	}
	return b.String()
}
