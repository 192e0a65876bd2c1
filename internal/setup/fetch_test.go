//go:build linux

package setup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// TestAKernelIsFetchedFromAURL, when it is what its sum says.
func TestAKernelIsFetchedFromAURL(t *testing.T) {
	content := []byte("a kernel")
	digest := sha256.Sum256(content)
	good := hex.EncodeToString(digest[:])
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/vmlinux" {
			http.NotFound(w, r)
			return
		}
		w.Write(content)
	}))
	t.Cleanup(server.Close)
	for name, c := range map[string]struct{ source, sum, want string }{
		"the kernel":         {server.URL + "/vmlinux", good, ""},
		"in capital letters": {server.URL + "/vmlinux", strings.ToUpper(good), ""},
		"another sum":        {server.URL + "/vmlinux", strings.Repeat("0", 64), "has sha256 " + good},
		"no sum":             {server.URL + "/vmlinux", "", "its sha256 must be given"},
		"not there":          {server.URL + "/none", good, "404"},
		"a path":             {"./vmlinux", "", "neither a URL nor a package's name"},
		"an option":          {"-oDir::Etc=/tmp", "", "neither a URL nor a package's name"},
		"a sum of a package": {"linux-image-amd64", good, "a sha256 is for a URL"},
	} {
		path, err := FetchKernel(t.Context(), t.TempDir(), c.source, c.sum, io.Discard)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			continue
		}
		if text, errRead := os.ReadFile(path); err != nil || errRead != nil || !bytes.Equal(text, content) {
			t.Errorf("%s: %q, %v, %v", name, text, err, errRead)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := FetchKernel(over, t.TempDir(), server.URL+"/vmlinux", good, io.Discard); err == nil {
		t.Error("it was fetched after the context's end")
	}
}
