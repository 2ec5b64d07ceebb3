// Reads JSON bodies as Ollama's server does (gin's ShouldBindJSON is a json.Decoder) and says what it understood.
// `record.py` runs it; the tests read only what it said.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
)

type request struct {
	Model    string         `json:"model"`
	Stream   *bool          `json:"stream,omitempty"`
	Options  map[string]any `json:"options"`
	Messages []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		body, err := hex.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		var read request
		said := map[string]any{"body": lines.Text()}
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&read); err != nil {
			said["error"] = err.Error()
		} else {
			said["model"], said["stream"] = read.Model, read.Stream == nil || *read.Stream
			if number, ok := read.Options["num_ctx"].(float64); ok {
				said["num_ctx"] = int64(number)
			}
		}
		out.Encode(said)
	}
}
