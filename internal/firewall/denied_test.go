//go:build linux

package firewall

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"
)

func TestHostDeniedFlowsAreCounted(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("9.9.9.9")
	m.check("udp:198.41.0.4:5000 denied", "udp:198.41.0.4:5000 denied", "tcp:10.1.2.3:443 denied", "icmp:198.41.0.4 denied", "tcp:172.16.0.1:22 denied", "tcp:9.9.9.9:80 passes")
	denied, err := m.rules.Denied()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, d := range denied {
		got[fmt.Sprintf("%s %s %d", d.Protocol, d.Address, d.Port)] = d.Packets
		if d.Bytes < d.Packets*20 {
			t.Errorf("%+v has too few bytes", d)
		}
	}
	for flow, least := range map[string]uint64{"udp 198.41.0.4 5000": 2, "tcp 10.1.2.3 443": 1, "icmp 198.41.0.4 0": 1, "tcp 172.16.0.1 22": 1} {
		if got[flow] < least {
			t.Errorf("%s is there %d times, want %d", flow, got[flow], least)
		}
		delete(got, flow)
	}
	if len(got) > 0 {
		t.Errorf("not denied: %v", got)
	}
	if denied[0].Port != 5000 {
		t.Errorf("the first is %+v", denied[0])
	}
}

// watch collects what is told live.
func (m *machine) watch(ctx context.Context) (<-chan Denied, <-chan error) {
	told, ended := make(chan Denied, 1000), make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		var last error
		for d, err := range m.rules.watchDenied(ctx, func() { close(ready) }) {
			if err != nil {
				last = err
				break
			}
			told <- d
		}
		ended <- last
	}()
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
	}
	return told, ended
}

func TestHostDeniedFlowsAreToldLive(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("9.9.9.9")
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := m.watch(ctx)
	m.check("tcp:9.9.9.9:80 passes", "udp:198.41.0.4:5000 denied", "tcp:10.1.2.3:443 denied", "icmp:198.41.0.4 denied")
	for _, want := range []string{"udp 198.41.0.4 5000", "tcp 10.1.2.3 443", "icmp 198.41.0.4 0"} {
		select {
		case d := <-told:
			if got := fmt.Sprintf("%s %s %d", d.Protocol, d.Address, d.Port); got != want || d.Packets != 1 || d.Bytes < 20 {
				t.Errorf("told of %+v, want %s", d, want)
			}
		case <-time.After(patient):
			t.Fatalf("not told of %s", want)
		}
	}
	if _, again := m.watch(t.Context()); !errors.Is(<-again, syscall.EBUSY) {
		t.Error("a second watcher is possible")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the watch ends with %v", err)
	}
	told, _ = m.watch(t.Context()) // another one, later
	m.check("udp:198.41.0.4:5001 denied")
	select {
	case <-told:
	case <-time.After(patient):
		t.Fatal("a later watcher is told nothing")
	}
}

func TestHostDeniedFlowsAreToldAtMostSoFast(t *testing.T) {
	m := newWorld(t).machine(1)
	told, _ := m.watch(t.Context())
	start := time.Now()
	m.flood(public1, 5000)
	most := deniedBurst + deniedRate*int(time.Since(start)/time.Second+2)
	m.check("udp:198.41.0.4:5000 denied")
	n := len(told)
	if n > most || n == 0 {
		t.Errorf("told of %d, want 1 to %d", n, most)
	}
}
