"""Life after release: have the images that come in moved away from those the student was judged on?"""
