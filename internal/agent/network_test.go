//go:build linux

package agent

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestHostNetworkUp makes a network namespace with an interface of the guest's name.
func TestHostNetworkUp(t *testing.T) {
	ring.Host(t)
	root := t.TempDir()
	inNetwork(t, func() {
		if err := networkUp(root); err != nil {
			t.Fatalf("without an interface: %v", err)
		}
		if _, err := os.Lstat(filepath.Join(root, "etc/resolv.conf")); !os.IsNotExist(err) {
			t.Errorf("without an interface there is a resolver: %v", err)
		}
		makeInterface(t)
		if err := os.Symlink("/nowhere/stub.conf", filepath.Join(root, "etc/resolv.conf")); err != nil {
			t.Fatal(err)
		}
		for range 2 { // what is so already is no error
			if err := networkUp(root); err != nil {
				t.Fatal(err)
			}
		}
		checkInterface(t)
	})
	if text, err := os.ReadFile(filepath.Join(root, "etc/resolv.conf")); string(text) != "nameserver 172.16.0.1\n" {
		t.Errorf("resolver: %q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "etc/hosts")); err != nil || len(text) == 0 {
		t.Errorf("hosts: %q, %v", text, err)
	}
}

func TestHostsOfTheImageStay(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "etc/hosts")
	if err := renewFile(path, "10.1.2.3 mine\n"); err != nil {
		t.Fatal(err)
	}
	if err := writeHosts(root); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); string(text) != "10.1.2.3 mine\n" {
		t.Errorf("hosts: %q, %v", text, err)
	}
}

// inNetwork calls f on a thread with a network namespace of its own, which ends with the thread.
func inNetwork(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// makeInterface makes eth0 as a TAP, with a reader so that it is up.
func makeInterface(t *testing.T) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	request, err := unix.NewIfreq(networkInterface)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Fatal(err)
	}
}

func checkInterface(t *testing.T) {
	t.Helper()
	eth0, err := net.InterfaceByName(networkInterface)
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := eth0.Addrs()
	has := slices.ContainsFunc(addresses, func(a net.Addr) bool { return a.String() == networkAddress.String() })
	if err != nil || !has || eth0.Flags&net.FlagUp == 0 {
		t.Errorf("%v has %v, %v", eth0, addresses, err)
	}
	conn, err := net.Dial("udp4", "192.0.2.1:9") // a route for it, nothing is sent
	if err != nil {
		t.Fatalf("no route: %v", err)
	}
	defer conn.Close()
	if got := conn.LocalAddr().(*net.UDPAddr).IP.String(); got != networkAddress.Addr().String() {
		t.Errorf("speaks from %s", got)
	}
}
