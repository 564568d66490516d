"""The chat about a picture, in the browser: `python app.py`, the same as `blip2-lab app`."""

from blip2_lab.chat.web.start import main

if __name__ == "__main__":
    main()
